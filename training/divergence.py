"""Detects divergence and reports where it began."""

from pipelines.pairs import PairData
from runtime import checkpoint
from runtime.distributed import Process
from runtime.errors import TrainingError
from training.config import TrainConfig
from training.metrics import StepMetrics
from training.run_files import write_report


def first_bad_step(metrics: StepMetrics, max_loss: float) -> int | None:
    """The first of n steps whose loss or gradient norm is not finite or whose loss is above
    ``max_loss``; None where all are good."""
    good = metrics.loss.isfinite() & metrics.gradient_norm.isfinite() & (metrics.loss <= max_loss)
    return None if good.all() else int((~good).nonzero()[0])


def check(
    metrics: StepMetrics, first: int, config: TrainConfig, data: PairData, process: Process
) -> None:
    """Check the ``metrics`` of consecutive steps, the first of which is step ``first``.

    Raises:
        TrainingError: training diverged; ``diverged.json`` in the run's folder has the keys of the
            images in the step where it began.
        LogError: it did, and that file cannot be written.
    """
    bad = first_bad_step(metrics, config.train.max_loss)
    if bad is None:
        return
    step, batch = first + bad, config.train.global_batch // data.plan.pairs_per_position
    loss, norm = metrics.loss[bad].item(), metrics.gradient_norm[bad].item()
    anchors, partners = data.keys(step * batch, batch)
    report = config.out / "diverged.json"
    if process.is_first:
        what = {"step": step, "loss": str(loss), "gradient_norm": str(norm)}
        write_report(report, what | {"anchors": anchors, "partners": partners})
    kept = checkpoint.step_folders(config.out)
    raise TrainingError(
        f"training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}, batch of "
        f"{anchors[0]}, {partners[0]}, ... (all keys in {report}); last good checkpoint: "
        f"{kept[0] if kept else 'none'}; lower optimizer.lr or set train.clip"
    )
