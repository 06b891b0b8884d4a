"""One optimiser step over all processes, without waiting for the device."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from model.network import Classifier, ReSeND
from pipelines.loader import PairBatch
from runtime.distributed import Process, distribute
from training.config import TrainConfig
from training.optimization import lr_factor, set_lr, trust_ratios
from training.task import build_loss


class Stepper:
    """Trains ``network`` with the batches of ``batches``, ``train.accumulate`` of them a step.

    Attributes:
        waiting: how long the device had nothing to do for want of data.
        trust: (smallest, median) trust ratio of LARS, (2,), at the last step that was measured.
    """

    def __init__(
        self,
        config: TrainConfig,
        process: Process,
        network: ReSeND | Classifier,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[PairBatch],
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.waiting = DataWait(process.device)
        self.trust: Tensor | None = None
        self._config, self._process, self._batches = config, process, batches
        self._loss_of = build_loss(config)
        self._wrapped = distribute(network, process, compiled=config.train.compile)
        self._wrapped.train()
        self._parameters = [p for p in network.parameters() if p.requires_grad]

    def step(self, number: int, *, measure: bool = False) -> Tensor:
        """Do step ``number``.

        Whatever is random in the network is seeded by (seed, step, rank), so that no random state
        outlives a step.

        Returns:
            A row (6,) on the device that adds up over the processes: loss and gradient norm, each
            divided by the number of processes, and the four counts of ``training.task``.
        """
        config, loop = self._config, self._config.train
        factor = lr_factor(config.schedule, number, loop.iterations)
        set_lr(self.optimizer, config.optimizer.lr * factor)
        self.optimizer.zero_grad()
        torch.manual_seed(hash((config.seed, number, self._process.rank)) % 2**63)
        parts = []
        for part in range(loop.accumulate):
            with self.waiting:
                batch = next(self._batches)
            parts.append(self._backward(batch, last=part + 1 == loop.accumulate))
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if loop.clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, loop.clip, norm)
        if measure and config.optimizer.name in ("lars", "torchlars"):
            ratios = trust_ratios(self._parameters, config.optimizer.weight_decay)
            self.trust = torch.stack([ratios.min(), ratios.median()])
        self.optimizer.step()
        self.waiting.step_is_launched()
        row = torch.stack(parts).sum(0)
        row[1] = norm.detach() / self._process.world_size
        return row

    def _backward(self, batch: PairBatch, *, last: bool) -> Tensor:
        wrapped, loop = self._wrapped, self._config.train
        hold: AbstractContextManager[None] = nullcontext()
        if not last and isinstance(wrapped, nn.parallel.DistributedDataParallel):
            hold = wrapped.no_sync()
        with hold:
            with torch.autocast(
                self._process.device.type, torch.bfloat16, enabled=loop.precision == "bfloat16"
            ):
                output = wrapped(batch.images.to(self._process.device, torch.float32))
            loss, counts = self._loss_of(output.float(), batch)
            (loss / loop.accumulate).backward()
        share = loss.detach() / (loop.accumulate * self._process.world_size)
        return torch.cat([torch.stack([share, torch.zeros_like(share)]), counts])


class DataWait:
    """Measures how long the device stands idle while the host waits for a batch.

    On a GPU the host runs ahead, so a wait counts only from the moment when the device has done all
    that it was given; events measure it without waiting for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._started = 0.0
        self._idle: torch.cuda.Event | None = None
        self._waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if not self._on_gpu:
            self._seconds += time.perf_counter() - self._started
        elif self._idle is not None:
            self._waits.append((self._idle, self._event()))
            self._idle = None

    def step_is_launched(self) -> None:
        if self._on_gpu:
            self._idle = self._event()

    def take(self) -> float:
        """Seconds since the previous call; waits for the device on a GPU."""
        if self._on_gpu:
            torch.cuda.synchronize()
            self._seconds = sum(start.elapsed_time(end) for start, end in self._waits) / 1000
            self._waits = []
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
