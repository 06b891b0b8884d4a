"""Run logging on rank 0: progress bar, JSON lines, TensorBoard."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from training.board import Board
from training.output_config import LogConfig
from training.run_files import AppendedFile


class RunLog:
    """Writes a run's metrics to ``RUN/log.jsonl`` and ``RUN/tensorboard`` and its progress to
    the terminal. Where ``active`` is False, as on all ranks but the first, it does nothing.

    Raises:
        LogError: a file cannot be written; ``metrics`` raises it too.
    """

    def __init__(
        self, run: Path, config: LogConfig, *, active: bool, first: int, total: int
    ) -> None:
        self._active = active
        self._started = time.time()
        if not active:
            return
        self._lines = AppendedFile(run / "log.jsonl")
        self._lines.end_line()
        self._board = Board(run / "tensorboard") if config.tensorboard else None
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
            if self._board is not None:
                self._board.close()

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
        if self._board is not None:
            self._board.write(step, values)
        line = _summary(values)
        if self._draws:
            self._bar.set_postfix_str(line)
        else:
            print(f"step {step}: {line}", flush=True)

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
