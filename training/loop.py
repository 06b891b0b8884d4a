"""The steps of a run, with what is measured, saved and watched on the way."""

import json
import time

import torch
from torch import Tensor

from pipelines.loader import PairLoader
from pipelines.pairs import PairData
from runtime import checkpoint
from runtime.config import plain
from runtime.distributed import Process, StopSignal
from runtime.errors import TrainingError
from training import cost
from training.config import TrainConfig
from training.run_log import RunLog
from training.step import Stepper
from training.validation import Validation

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: saved on a signal, start again to continue
INTERRUPTED_FILE = "interrupted.json"  # for those who see only torchrun's exit code


class Loop:
    """Runs the steps from ``start`` to ``train.iterations``.

    Metrics are gathered every ``log.every`` steps and before each checkpoint; between these the
    host never waits for the device.

    Args:
        config: resolved.
        process: this process.
        stepper: does the steps.
        loader: the stepper's batches.
        data: what is trained on.
        log: where metrics go.
        validation: what is evaluated before each checkpoint, if anything.
        flops: of one step on one device.
    """

    def __init__(
        self,
        config: TrainConfig,
        process: Process,
        stepper: Stepper,
        loader: PairLoader,
        data: PairData,
        log: RunLog,
        validation: Validation | None,
        flops: float,
    ) -> None:
        self._config, self._process, self._stepper = config, process, stepper
        self._loader, self._data = loader, data
        self._log, self._validation, self._flops = log, validation, flops
        self._pending: list[Tensor] = []
        self._clock = time.perf_counter()

    def run(self, start: int) -> int:
        """The exit status: 0, or ``INTERRUPTED``.

        Raises:
            TrainingError: the loss or the gradient is not finite, or the loss is above its limit.
            CheckpointError: a checkpoint could not be written.
        """
        marker = self._config.out / INTERRUPTED_FILE
        if self._process.is_first:
            marker.unlink(missing_ok=True)
        with StopSignal(self._process) as stop:
            stopped = self._steps(start, stop)
        if stopped is None:
            iterations = self._config.train.iterations
            self._log.say(f"{iterations:,} steps are done; checkpoints are in {self._config.out}")
            return 0
        if self._process.is_first:
            marker.write_text(json.dumps({"step": stopped}) + "\n")
        signal = stop.received or "another process's signal"
        self._log.say(f"{signal}: saved step {stopped}, start again to continue")
        return INTERRUPTED

    def _steps(self, start: int, stop: StopSignal) -> int | None:
        """Do the steps; returns how many are done where a signal stopped them early."""
        config, iterations = self._config, self._config.train.iterations
        self._clock = time.perf_counter()
        for number in range(start, iterations):
            done = number + 1
            measure = done % config.log.every == 0 or done == iterations
            self._pending.append(self._stepper.step(number, measure=measure))
            self._log.advance()
            stopping = stop.agreed() and done < iterations
            saving = done % config.checkpoint.every == 0 or done == iterations or stopping
            metrics = self._gather(done) if measure or saving else {}
            if saving:
                self._save(done, metrics, validate=not stopping)
            if stopping:
                return done
        return None

    def _gather(self, done: int) -> dict[str, float]:
        """The mean metrics since the last time, logged."""
        rows = self._process.sum(torch.stack(self._pending)).double().cpu()
        seconds = time.perf_counter() - self._clock
        first = done - len(self._pending)
        self._pending = []
        self._check(rows, first)
        metrics = self._metrics(rows, seconds)
        self._log.metrics(done, metrics)
        self._clock = time.perf_counter()
        return metrics

    def _metrics(self, rows: Tensor, seconds: float) -> dict[str, float]:
        config, stepper, process = self._config, self._stepper, self._process
        loss, norm, right_same, same, right_different, different = rows.sum(0).tolist()
        values = {"loss": loss / len(rows)}
        if config.task == "relation":
            values["accuracy_same"] = right_same / max(same, 1)
            values["accuracy_different"] = right_different / max(different, 1)
        else:
            values["accuracy"] = right_same / max(same, 1)
        values["gradient_norm"] = norm / len(rows)
        values["lr"] = stepper.optimizer.param_groups[-1]["lr"]
        if stepper.trust is not None:
            smallest, median = stepper.trust.tolist()
            values |= {"trust_min": smallest, "trust_median": median}
        pairs = len(rows) * config.train.global_batch / seconds
        values |= {
            "pairs_per_second": pairs,
            "images_per_second": 2 * pairs,
            "data_wait_share": stepper.waiting.take() / seconds,
            "memory_gib": cost.memory_gib(process.device),
            "damaged_samples": float(self._loader.num_damaged),
        }
        peak = config.log.peak_tflops and config.log.peak_tflops * 1e12
        peak = peak or cost.peak_flops(process.device, config.train.precision)
        if peak:
            values["mfu"] = self._flops * len(rows) / seconds / peak
        return values

    def _check(self, rows: Tensor, first: int) -> None:
        good = rows.isfinite().all(1) & (rows[:, 0] <= self._config.train.max_loss)
        if good.all():
            return
        config, place = self._config, int((~good).nonzero()[0])
        step, loss, norm = first + place, float(rows[place, 0]), float(rows[place, 1])
        batch = config.train.global_batch
        anchors, partners = self._data.keys(step * batch, batch)
        report = config.out / "diverged.json"
        if self._process.is_first:
            what = {"step": step, "loss": str(loss), "gradient_norm": str(norm)}
            report.write_text(json.dumps(what | {"anchors": anchors, "partners": partners}) + "\n")
        kept = checkpoint.step_folders(config.out)
        raise TrainingError(
            f"training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}, batch of "
            f"{anchors[0]}, {partners[0]}, ... (all keys in {report}); last good checkpoint: "
            f"{kept[0] if kept else 'none'}; lower optimizer.lr or set train.clip"
        )

    def _save(self, done: int, metrics: dict[str, float], *, validate: bool) -> None:
        if self._validation is not None and validate:
            measured = self._validation.measure(self._stepper.network)
            self._log.metrics(done, measured)
            metrics = metrics | measured
        if self._process.is_first:
            checkpoint.save(
                self._config.out,
                done,
                weights=self._stepper.network.state_dict(),
                config=plain(self._config),
                metrics=metrics,
                training={
                    "optimizer": self._stepper.optimizer.state_dict(),
                    "pack": self._data.pack.manifest.fingerprint,
                },
            )
            kept = self._config.checkpoint
            checkpoint.prune(self._config.out, kept.keep, kept.best)
        self._clock = time.perf_counter()
