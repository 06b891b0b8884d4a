"""One optimizer step on all processes, without waiting for the device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import record_function

from model.network import Classifier, ReSeND
from pipelines.hashing import stream
from pipelines.loader import PairBatch
from runtime.distributed import Process, distribute
from runtime.precision import use_tensor_float32
from training.averaging import AveragedNetwork
from training.config import TrainConfig
from training.data_wait import DataWait
from training.metrics import StepMetrics
from training.optimization import lr_factor, set_lr, trust_ratios
from training.samples import JudgedPairs
from training.task import TaskLoss, create_task


class Stepper:
    """Trains ``network`` with the batches of ``batches``, ``train.accumulate`` of them per step.

    On a GPU, float32 products use TF32 from now on, in this process.

    Attributes:
        network, optimizer: those given.
        averaged: the average of the network's weights, updated in each step; None for none.
        task: what the network is trained for.
        waiting: the device's idle time spent waiting for data.
        trust: (smallest, median) trust ratio of LARS, (2,), at the last step that was measured.
    """

    def __init__(
        self,
        config: TrainConfig,
        process: Process,
        network: ReSeND | Classifier,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[PairBatch],
        averaged: AveragedNetwork | None = None,
    ) -> None:
        self.network, self.optimizer, self.averaged = network, optimizer, averaged
        self.task = create_task(config)
        self.waiting = DataWait(process.device)
        self.trust: Tensor | None = None
        self._judged: JudgedPairs | None = None
        self._config, self._process, self._batches = config, process, batches
        self._rounded = config.train.precision == "bfloat16"
        # stored features stay as they are: bfloat16 would round them before they are compared
        round_input = self._rounded and not config.train.frozen
        self._input_dtype = torch.bfloat16 if round_input else torch.float32
        if process.device.type == "cuda":
            use_tensor_float32()
        self._wrapped = distribute(
            self.task.module(network), process, compiled=config.train.compile
        )
        self._wrapped.train()
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        # recomputing activations in the backward pass would update running statistics once more
        recomputes = config.train.activation_checkpointing
        self._buffers = list(network.buffers()) if recomputes else []

    def step(self, number: int, *, measure: bool = False, sample: bool = False) -> StepMetrics:
        """Do step ``number``; with ``sample``, ``take_sample`` then gives pairs of it.

        Everything random in the network is seeded by (seed, step, rank), so that no random state
        has to be saved between steps.

        Returns:
            Tensors on the device, to be summed over the processes: loss and gradient norm are
            already divided by their number.
        """
        config, loop = self._config, self._config.train
        factor = lr_factor(config.schedule, number, loop.iterations)
        set_lr(self.optimizer, config.optimizer.lr * factor)
        self.optimizer.zero_grad()
        key = stream(config.seed, np.array([number]), np.array([self._process.rank]))
        torch.manual_seed(int(key[0]))
        done = []
        for micro_batch in range(loop.accumulate):
            with self.waiting, record_function("wait for data"):
                batch = next(self._batches)
            part = self._backward(batch, last=micro_batch + 1 == loop.accumulate)
            judged = part.judged
            done.append(part._replace(judged=None))  # frees the images
        self._judged = judged if sample else None
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if loop.clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, loop.clip, norm)
        if measure and config.optimizer.name in ("lars", "torchlars"):
            ratios = trust_ratios(self._parameters, config.optimizer.weight_decay)
            self.trust = torch.stack([ratios.min(), ratios.median()])
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update(number + 1)
        losses = torch.stack([part.loss for part in done])
        return StepMetrics(
            loss=losses.sum() / (loop.accumulate * self._process.world_size),
            gradient_norm=norm.detach() / self._process.world_size,
            counts=torch.stack([part.counts for part in done]).sum(0),
        )

    def take_sample(self) -> JudgedPairs | None:
        """The pairs of the last micro-batch of a step that was to be sampled, once."""
        judged, self._judged = self._judged, None
        return judged

    def _backward(self, batch: PairBatch, *, last: bool) -> TaskLoss:
        """Add the gradients of a micro-batch; returns its loss."""
        wrapped, accumulate = self._wrapped, self._config.train.accumulate
        hold: AbstractContextManager[None] = nullcontext()
        if not last and isinstance(wrapped, nn.parallel.DistributedDataParallel):
            hold = wrapped.no_sync()
        with hold:
            with torch.autocast(self._process.device.type, torch.bfloat16, enabled=self._rounded):
                images = batch.images.to(self._process.device, self._input_dtype)
                result = self.task.loss(wrapped, images, batch)
            kept = [buffer.clone() for buffer in self._buffers]
            (result.loss / accumulate).backward()
            for buffer, value in zip(self._buffers, kept, strict=True):
                buffer.copy_(value)
        return result._replace(loss=result.loss.detach())
