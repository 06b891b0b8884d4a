"""The training loop: steps, metrics, checkpoints, validation and signals."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.loader import PairLoader
from pipelines.pairs import PairData
from runtime import checkpoint
from runtime.config import plain
from runtime.distributed import Process
from runtime.stop_signal import StopSignal
from training import cost, divergence
from training.config import TrainConfig
from training.frozen import FeatureLoader
from training.metrics import StepMetrics
from training.profiling import profiled_steps
from training.run_files import LogError, remove_report, write_report
from training.run_log import RunLog
from training.step import Stepper
from training.validation import Validation

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: a signal stopped the run, which can be resumed
INTERRUPTED_FILE = "interrupted.json"  # for scripts that see only torchrun's exit code


@dataclass(frozen=True)
class Run:
    """What does not change during a run.

    Attributes:
        config: resolved.
        process: this process.
        data: the training pairs.
        validation: what is evaluated after each checkpoint, if anything.
        peak_seconds: what a step takes at the device's peak; None where the peak is not known.
    """

    config: TrainConfig
    process: Process
    data: PairData
    validation: Validation | None
    peak_seconds: float | None


class Loop:
    """Runs the steps from ``start`` to ``train.iterations``.

    Metrics are gathered every ``log.every`` steps and before each checkpoint; otherwise the host
    never waits for the device.

    Args:
        run: what is trained, and how.
        stepper: does the steps.
        loader: the stepper's batches.
        log: where metrics go.
    """

    def __init__(
        self, run: Run, stepper: Stepper, loader: PairLoader | FeatureLoader, log: RunLog
    ) -> None:
        self._run, self._config, self._process = run, run.config, run.process
        self._stepper, self._loader, self._log = stepper, loader, log
        self._pending: list[StepMetrics] = []
        self._clock = time.perf_counter()

    def run(self, start: int) -> int:
        """The exit status: 0, or ``INTERRUPTED``.

        Raises:
            TrainingError: the loss or the gradient is not finite, or the loss is above its limit.
            CheckpointError: a checkpoint could not be written.
            LogError: the log could not be written; the steps so far are saved.
        """
        if self._process.is_first:
            remove_report(self._config.out / INTERRUPTED_FILE)
        profiled = profiled_steps(self._config, self._process, start, self._log.say)
        with StopSignal(self._process) as stop, profiled as after_step:
            stopped = self._steps(start, stop, after_step)
        if stopped is None:
            iterations = self._config.train.iterations
            self._log.say(f"{iterations:,} steps are done; checkpoints are in {self._config.out}")
            return 0
        if self._process.is_first:
            write_report(self._config.out / INTERRUPTED_FILE, {"step": stopped})
        signal = stop.received or "another process's signal"
        self._log.say(f"{signal}: saved step {stopped}, start again to continue")
        return INTERRUPTED

    def _steps(self, start: int, stop: StopSignal, after_step: Callable[[], None]) -> int | None:
        """Do the steps, each followed by ``after_step``; returns how many are done if a signal
        stopped the run early, else None."""
        config, iterations = self._config, self._config.train.iterations
        self._clock = time.perf_counter()
        for number in range(start, iterations):
            done = number + 1
            sample = config.log.samples > 0 and done % config.log.samples == 0
            measure = done % config.log.every == 0 or done == iterations or sample
            own = sample and self._process.is_first
            self._pending.append(self._stepper.step(number, measure=measure, sample=own))
            self._log.advance()
            stopping = stop.agreed() and done < iterations
            saving = done % config.checkpoint.every == 0 or done == iterations or stopping
            metrics = self._gather(done) if measure or saving else {}
            if saving:
                self._checkpoint(done, metrics, validate=not stopping)
            if stopping:
                return done
            after_step()
        return None

    def _gather(self, done: int) -> dict[str, float]:
        """The mean metrics since the last time, logged."""
        steps = StepMetrics.gather(self._pending, self._process)
        seconds = time.perf_counter() - self._clock
        first = done - len(self._pending)
        self._pending = []
        divergence.check(steps, first, self._config, self._run.data, self._process)
        metrics = _means(self._run, self._stepper, steps, seconds)
        metrics["damaged_samples"] = float(self._loader.num_damaged)
        try:
            self._log.metrics(done, metrics)
            self._draw_sample(done)
        except LogError:
            self._save(done, metrics)
            raise
        self._clock = time.perf_counter()
        return metrics

    def _draw_sample(self, done: int) -> None:
        """Log a sheet of the last step's pairs if that step was to be sampled."""
        judged, preprocessing = self._stepper.take_sample(), self._config.input.preprocessing
        if judged is not None:
            sheet = judged.sheet(self._run.data.pack, preprocessing, done)
            self._log.image(done, "pairs", sheet)

    def _checkpoint(self, done: int, metrics: dict[str, float], *, validate: bool) -> None:
        """Save, then validate: a validation that fails loses no step."""
        folder = self._save(done, metrics) if self._process.is_first else None
        if self._run.validation is not None and validate:
            self._log.say(f"validating step {done} on {self._config.validation.protocol} ...")
            averaged = self._stepper.averaged
            evaluated = self._stepper.network if averaged is None else averaged.network
            measured = self._run.validation.measure(evaluated)
            if folder is not None:
                checkpoint.add_metrics(folder, measured)
            self._log.metrics(done, measured)
        if folder is not None:
            kept = self._config.checkpoint
            checkpoint.prune(self._config.out, kept.keep, kept.best)
        self._clock = time.perf_counter()

    def _save(self, done: int, metrics: dict[str, float]) -> Path:
        averaged = self._stepper.averaged
        return checkpoint.save(
            self._config.out,
            done,
            weights=self._stepper.network.state_dict(),
            config=plain(self._config),
            metrics=metrics,
            training=checkpoint.TrainingState(
                {
                    "optimizer": self._stepper.optimizer.state_dict(),
                    "pack": self._run.data.pack.manifest.fingerprint,
                },
                None if averaged is None else averaged.network.state_dict(),
            ),
        )


def _means(run: Run, stepper: Stepper, steps: StepMetrics, seconds: float) -> dict[str, float]:
    """The means of ``steps``, which took ``seconds``, by the names under which they are logged."""
    config, process = run.config, run.process
    values = {"loss": steps.loss.mean().item()}
    values |= zip(stepper.task.accuracies, steps.accuracies(), strict=True)
    values["gradient_norm"] = steps.gradient_norm.mean().item()
    values["lr"] = stepper.optimizer.param_groups[-1]["lr"]
    if stepper.trust is not None:
        smallest, median = stepper.trust.tolist()
        values |= {"trust_min": smallest, "trust_median": median}
    pairs, plan = len(steps.loss) * config.train.global_batch / seconds, run.data.plan
    values |= {
        "pairs_per_second": pairs,
        "images_per_second": pairs * plan.images_per_position / plan.pairs_per_position,
        "data_wait_share": process.maximum(stepper.waiting.take() / seconds),
        "memory_gib": cost.memory_gib(process.device),
    }
    if run.peak_seconds is not None:
        values["mfu"] = run.peak_seconds * len(steps.loss) / seconds
    return values
