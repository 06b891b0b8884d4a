"""The configuration of what a training run measures on the way, saves and logs."""

from dataclasses import dataclass
from pathlib import Path

from runtime.checks import above, check_numbers, whole

MAX_STEPS = 10**8 - 1  # checkpoints are named by eight digits


@dataclass(frozen=True)
class ValidationConfig:
    """Evaluation after each checkpoint; the metrics are those of ``evaluate.py``.

    Attributes:
        protocol: a benchmark's YAML file; null disables validation.
        pack: folder or URL of the pack to evaluate on; null for the training pack.
        targets: names of the protocol's targets; null for all.
        evaluator: the one whose AUROC, averaged over the targets, is the metric ``auroc``.
        evaluators: others whose metrics are logged as well.
        batch_size: images per batch and process.
    """

    protocol: Path | None = None
    pack: str | None = None
    targets: tuple[str, ...] | None = None
    evaluator: str = "relation-softmax"
    evaluators: tuple[str, ...] = ()
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_numbers("validation", self, batch_size=whole(1, 65_536))


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept.

    Attributes:
        every: steps between checkpoints; the last step always has one.
        keep: how many of the newest are kept, in addition to the one with the best ``best``.
        best: the metric, higher is better, by which the best checkpoint is chosen: ``auroc``, an
            accuracy in training, or ``validation/METRIC/EVALUATOR`` and ``.../TARGET``; without
            validation there is no ``auroc``, and only the newest are kept.
    """

    every: int = 500
    keep: int = 3
    best: str = "auroc"

    def __post_init__(self) -> None:
        check_numbers("checkpoint", self, every=whole(1, MAX_STEPS), keep=whole(1))


@dataclass(frozen=True)
class LogConfig:
    """How often and where the run is logged.

    Attributes:
        every: steps after which metrics are gathered; only then does the host wait for the device.
        tensorboard: write TensorBoard files in addition to ``log.jsonl``.
        wandb: name of a project at Weights & Biases to log to as well; empty for none.
        samples: steps after which a sheet of training pairs with their logits is drawn for
            TensorBoard and Weights & Biases; 0 for never.
        progress: draw a progress bar on a terminal.
        peak_tflops: the device's peak for the precision in use, from which the model FLOPs
            utilization (MFU) follows; null takes it from a table of NVIDIA's data-center GPUs.
    """

    every: int = 20
    tensorboard: bool = True
    wandb: str = ""
    samples: int = 0
    progress: bool = True
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        check_numbers(
            "log",
            self,
            every=whole(1, MAX_STEPS),
            samples=whole(0, MAX_STEPS),
            peak_tflops=above(0),
        )
        if self.samples and not (self.tensorboard or self.wandb):
            raise ValueError("log.samples needs log.tensorboard or log.wandb to show them")
