"""Train the relational network on pairs, or a backbone by classification, on any number of devices.

python train_ddp.py --config configs/quickstart.yaml
torchrun --nproc_per_node=8 train_ddp.py --config configs/imagenet.yaml --run runs/imagenet
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.backbone import create_backbone
from model.network import Classifier, ModelConfig, build_network
from model.objectives import ObjectiveConfig, build_objective
from pipelines.augmentation import AugmentConfig
from pipelines.loader import InputConfig, PairBatch, PairLoader
from pipelines.pack import Pack
from pipelines.plan import PairPlan
from pipelines.selection import Selection
from runtime import checkpoint
from runtime.checkpoint import CheckpointConfig
from runtime.config import load_config, plain
from runtime.distributed import Process, StopSignal, distribute, process_group
from runtime.errors import CheckpointError, ConfigError
from runtime.logging import LogConfig, RunLog
from runtime.optimization import (
    OptimizerConfig,
    ScheduleConfig,
    build_optimizer,
    lr_factor,
    set_lr,
)
from runtime.weights import fit, load_backbone
from sharding.errors import PackError

INTERRUPTED = 75  # EX_TEMPFAIL: saved on a signal, start again to continue


@dataclass(frozen=True)
class DataConfig:
    """Which pairs are trained on.

    Attributes:
        pack: folder of the pack.
        domains: those to train on; null for all.
        classes: likewise.
        splits: likewise.
        num_negatives: negative pairs for each positive one.
        balanced: whether each class has the same number of anchors.
    """

    pack: Path
    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    num_negatives: int = 20
    balanced: bool = True


@dataclass(frozen=True)
class NetworkConfig(ModelConfig):
    """What is trained, and where its backbone starts.

    Attributes:
        pretrained: start the backbone at timm's published weights, which timm downloads.
        backbone_weights: start it at these: a run or checkpoint of ours, a .safetensors file, or a
            state dict with timm's or torchvision's names.
    """

    pretrained: bool = False
    backbone_weights: str | None = None


@dataclass(frozen=True)
class LoopConfig:
    """The training loop.

    Attributes:
        iterations: optimiser steps.
        global_batch: pairs of a step over all devices.
        accumulate: parts in which a step's pairs are taken, to save memory.
        clip: largest norm of the gradient; null leaves it as it is.
        precision: bfloat16 computes in mixed precision.
    """

    iterations: int = 13_000
    global_batch: int = 4096
    accumulate: int = 1
    clip: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.global_batch < 1 or self.accumulate < 1:
            raise ValueError("train.iterations, global_batch and accumulate must be at least 1")
        if self.global_batch % self.accumulate:
            raise ValueError("train.global_batch must be a multiple of train.accumulate")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: which pairs.
        run: folder for checkpoints and logs; a run that is there already is continued.
        task: ``relation`` learns whether two images show the same class; ``classification`` learns
            the classes of the same images, to warm up a backbone.
        seed: of the weights and of the plan of pairs.
    """

    data: DataConfig
    run: Path
    task: Literal["relation", "classification"] = "relation"
    seed: int = 0
    model: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    input: InputConfig = field(default_factory=InputConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 2 for a user's mistake, or ``INTERRUPTED``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = load_config(
            TrainConfig, arguments, prog="train_ddp.py", description=(__doc__ or "").strip()
        )
        with process_group(config.input.device) as process:
            return train(config, process)
    except (PackError, ConfigError, CheckpointError) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2


def train(config: TrainConfig, process: Process) -> int:
    """Train from the run's newest checkpoint, or from the start, to ``train.iterations``."""
    pack = Pack(config.data.pack)
    data = config.data
    rows = Selection(data.domains, data.classes, data.splits).rows(pack)
    plan = PairPlan(
        pack.index.label[rows],
        seed=config.seed,
        num_negatives=data.num_negatives,
        balanced=data.balanced,
    )
    torch.manual_seed(config.seed)
    network, loss_of = _task(config, plan.num_classes)
    network.to(process.device).to(memory_format=torch.channels_last)
    backbone = list(network.backbone.parameters())
    optimizer = build_optimizer(
        config.optimizer,
        [(backbone, config.optimizer.backbone_factor), (_others(network, backbone), 1.0)],
    )
    start = _resume(config, process, network, optimizer)
    loop = config.train
    loader = PairLoader(
        pack,
        rows,
        plan,
        config.augment,
        config.input,
        global_batch=loop.global_batch // loop.accumulate,
        rank=process.rank,
        world_size=process.world_size,
        start_step=start * loop.accumulate,
        device_id=process.local_rank,
    )
    log = RunLog(
        config.run, config.log, active=process.is_first, first=start, total=loop.iterations
    )
    with log:
        log.say(
            f"{config.task} on {len(rows):,} images of {plan.num_classes} classes, "
            f"{plan.pairs_per_epoch:,} pairs an epoch; {loop.iterations:,} steps of "
            f"{loop.global_batch} pairs on {process.world_size} x {process.device.type}"
        )
        stepper = _Stepper(config, process, network, optimizer, loss_of, loader)
        return _loop(config, process, stepper, log, pack, start)


class _Stepper:
    """One optimiser step: its parts' batches, losses and gradients."""

    def __init__(
        self,
        config: TrainConfig,
        process: Process,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_of: Callable[[Tensor, PairBatch], tuple[Tensor, Tensor]],
        loader: PairLoader,
    ) -> None:
        self.config, self.process, self.network = config, process, network
        self.optimizer, self.loss_of, self.loader = optimizer, loss_of, loader
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.wrapped = distribute(network, process)
        self.wrapped.train()
        self.waited = 0.0
        self.batch: PairBatch | None = None

    def step(self, number: int) -> Tensor:
        """Do step ``number``; returns this process's sums of the step (see ``_metrics``)."""
        config = self.config
        factor = lr_factor(config.schedule, number, config.train.iterations)
        set_lr(self.optimizer, config.optimizer.lr * factor)
        self.optimizer.zero_grad(set_to_none=True)
        sums = []
        for part in range(config.train.accumulate):
            started = time.perf_counter()
            self.batch = next(self.loader)
            self.waited += time.perf_counter() - started
            sums.append(self._backward(self.batch, last=part + 1 == config.train.accumulate))
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if config.train.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, config.train.clip, norm)
        self.optimizer.step()
        total = torch.stack(sums).sum(0)
        return torch.cat([total, norm.detach().reshape(1) / self.process.world_size])

    def _backward(self, batch: PairBatch, *, last: bool) -> Tensor:
        parts = self.config.train.accumulate
        hold = not last and isinstance(self.wrapped, nn.parallel.DistributedDataParallel)
        with self.wrapped.no_sync() if hold else nullcontext():
            with torch.autocast(
                self.process.device.type,
                torch.bfloat16,
                enabled=self.config.train.precision == "bfloat16",
            ):
                output = self.wrapped(batch.images.to(next(self.network.parameters()).dtype))
            loss, sums = self.loss_of(output.float(), batch)
            (loss / parts).backward()
        return torch.cat([loss.detach().reshape(1) / parts / self.process.world_size, sums])


def _loop(
    config: TrainConfig,
    process: Process,
    stepper: _Stepper,
    log: RunLog,
    pack: Pack,
    start: int,
) -> int:
    stop = StopSignal(process)
    iterations, saved = config.train.iterations, start
    pending: list[Tensor] = []
    clock, stepper.waited = time.perf_counter(), 0.0
    metrics: dict[str, float] = {}
    for number in range(start, iterations):
        pending.append(stepper.step(number))
        log.advance()
        done = number + 1
        stopping = stop.agreed()
        if done % config.log.every == 0 or done == iterations or stopping:
            sums = process.sum(torch.stack(pending)).double().cpu()
            seconds = time.perf_counter() - clock
            metrics = _metrics(config, stepper, sums, seconds)
            if not sums.isfinite().all():
                _diverged(config, stepper, pack, done - len(pending), sums)
            log.metrics(done, metrics)
            pending = []
            clock, stepper.waited = time.perf_counter(), 0.0
        if done % config.checkpoint.every == 0 or done == iterations or stopping:
            if process.is_first:
                _save(config, stepper, done, metrics)
            saved = done
        if stopping and done < iterations:
            log.say(f"{stop.received or 'signal'}: saved step {saved}; start again to continue")
            return INTERRUPTED
    log.say(f"{iterations:,} steps are done; the checkpoint is in {config.run}")
    return 0


def _metrics(
    config: TrainConfig, stepper: _Stepper, sums: Tensor, seconds: float
) -> dict[str, float]:
    """From one row a step: loss, right and all of the same pairs, right and all of the different
    ones, gradient norm; means over the ranks."""
    steps = len(sums)
    loss, right_same, same, right_different, different, norm = sums.sum(0).tolist()
    values = {"loss": loss / steps}
    if config.task == "relation":
        values["accuracy_same"] = right_same / max(same, 1)
        values["accuracy_different"] = right_different / max(different, 1)
    else:
        values["accuracy"] = right_same / max(same, 1)
    pairs = steps * config.train.global_batch
    return values | {
        "gradient_norm": norm / steps,
        "lr": stepper.optimizer.param_groups[-1]["lr"],
        "pairs_per_second": pairs / seconds,
        "data_wait_share": stepper.waited / seconds,
        "damaged_samples": float(stepper.loader.num_damaged),
    }


def _diverged(config: TrainConfig, stepper: _Stepper, pack: Pack, first: int, sums: Tensor) -> None:
    step = first + int((~sums.isfinite().all(1)).nonzero()[0])
    kept = checkpoint.step_folders(config.run)
    keys = pack.keys(stepper.batch.rows[:4]) if stepper.batch else []
    raise ConfigError(
        f"the loss is not finite at step {step} (newest batch begins with {', '.join(keys)}); "
        f"last checkpoint: {kept[0] if kept else 'none'}; lower optimizer.lr or set train.clip"
    )


def _save(config: TrainConfig, stepper: _Stepper, done: int, metrics: dict[str, float]) -> None:
    checkpoint.save(
        config.run,
        done,
        weights=stepper.network.state_dict(),
        config=plain(config),
        metrics=metrics,
        training={
            "optimizer": stepper.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        },
    )
    checkpoint.prune(config.run, config.checkpoint)


def _resume(
    config: TrainConfig, process: Process, network: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Load the run's newest whole checkpoint, if any; returns the steps that are done."""
    report: Callable[[str], None] = print if process.is_first else lambda _: None
    found = checkpoint.newest(config.run, report)
    if found is None:
        return 0
    fit(network, found.weights, f"checkpoint of step {found.step} in {config.run}")
    optimizer.load_state_dict(found.training["optimizer"])
    torch.set_rng_state(found.training["random"])
    report(f"continuing {config.run} at step {found.step}")
    return found.step


def _task(
    config: TrainConfig, num_classes: int
) -> tuple[Any, Callable[[Tensor, PairBatch], tuple[Tensor, Tensor]]]:
    """The network, and its loss with counts: right and all of the same pairs (or, when
    classifying, of the images), right and all of the different pairs."""
    settings = config.model
    try:
        if config.task == "relation":
            network: nn.Module = build_network(settings, pretrained=settings.pretrained)
        else:
            backbone = create_backbone(settings.backbone, pretrained=settings.pretrained)
            network = Classifier(backbone, num_classes)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"cannot fetch the weights of {settings.backbone} ({str(error).splitlines()[0]}); "
            "where there is no network give a file as model.backbone_weights"
        ) from error
    if settings.backbone_weights is not None:
        load_backbone(network.backbone, settings.backbone_weights)
    return network, _classification if config.task == "classification" else _relation(config)


def _relation(config: TrainConfig) -> Callable[[Tensor, PairBatch], tuple[Tensor, Tensor]]:
    objective = build_objective(config.objective)

    def loss_of(logits: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
        right, different = (logits > 0) == batch.different, batch.different
        counts = torch.stack([right & ~different, ~different, right & different, different])
        return objective(logits, batch.different), counts.sum(1).float()

    return loss_of


def _classification(logits: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
    right = (logits.argmax(1) == batch.labels).sum().float()
    count = torch.full_like(right, len(batch.labels))
    none = torch.zeros_like(right)
    loss = nn.functional.cross_entropy(logits, batch.labels)
    return loss, torch.stack([right, count, none, none])


def _others(network: nn.Module, members: list[nn.Parameter]) -> list[nn.Parameter]:
    known = {id(parameter) for parameter in members}
    return [parameter for parameter in network.parameters() if id(parameter) not in known]


if __name__ == "__main__":
    sys.exit(main())
