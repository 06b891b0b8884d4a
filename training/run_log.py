"""Run logging on rank 0: progress bar, JSON lines, TensorBoard, Weights & Biases."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image
from tqdm import tqdm

from training.board import Board
from training.output_config import LogConfig
from training.run_files import AppendedFile
from training.wandb_run import WandbRun


class RunLog:
    """Writes a run's metrics to ``RUN/log.jsonl``, TensorBoard and Weights & Biases, and its
    progress to the terminal. Where ``active`` is False, as on all ranks but the first, it does
    nothing.

    Args:
        run: the run's folder.
        config: where it is logged.
        active: whether it is.
        first, total: steps done, and to do in all.
        settings: the run's configuration, for Weights & Biases.

    Raises:
        LogError: a file cannot be written; ``metrics`` and ``image`` raise it too.
        ConfigError: Weights & Biases refuses to begin.
    """

    def __init__(
        self,
        run: Path,
        config: LogConfig,
        *,
        active: bool,
        first: int,
        total: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._active = active
        self._started = time.time()
        if not active:
            return
        self._lines = AppendedFile(run / "log.jsonl")
        self._lines.end_line()
        self._boards: list[Board | WandbRun] = []
        if config.tensorboard:
            self._boards.append(Board(run / "tensorboard"))
        if config.wandb:
            wandb = WandbRun(run, config.wandb, settings or {})
            print(f"logging to Weights & Biases: {wandb.place}", flush=True)
            self._boards.append(wandb)
        self._bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            disable=not (config.progress and sys.stderr.isatty()),
        )
        self._draws = not self._bar.disable

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._active:
            self._bar.close()
            self._lines.close()
            for board in self._boards:
                board.close(failed=error is not None)

    def advance(self) -> None:
        """Count one more step as done."""
        if self._active:
            self._bar.update()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` measured after ``step`` steps."""
        if not self._active:
            return
        record = {"step": step, "seconds": round(time.time() - self._started, 3), **values}
        self._lines.write(json.dumps(_rounded(record)).encode() + b"\n")
        for board in self._boards:
            board.write(step, values)
        line = _summary(values)
        if self._draws:
            self._bar.set_postfix_str(line)
        else:
            print(f"step {step}: {line}", flush=True)

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Record a picture of what happened in step ``step``."""
        if self._active:
            for board in self._boards:
                board.write_image(step, name, image)

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        if self._active:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()


def _rounded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in record.items()
    }


def _summary(values: Mapping[str, float]) -> str:
    shown = []
    for name, text in (
        ("loss", "loss {:.4f}"),
        ("accuracy", "accuracy {:.3f}"),
        ("accuracy_same", "same {:.3f}"),
        ("accuracy_different", "different {:.3f}"),
        ("auroc", "AUROC {:.4f}"),
        ("pairs_per_second", "{:.0f} pairs/s"),
        ("data_wait_share", "waiting {:.0%}"),
    ):
        if name in values:
            shown.append(text.format(values[name]))
    return ", ".join(shown)
