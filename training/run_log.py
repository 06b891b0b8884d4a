"""Run logging on rank 0: progress bar, JSON lines, TensorBoard."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from runtime.errors import UserError, first_line
from training.output_config import LogConfig


class LogError(UserError):
    """The log cannot be written."""


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small JSON file into the run's folder.

    Raises:
        LogError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(content) + "\n")
    except OSError as error:
        raise LogError(f"cannot write {path}: {first_line(error)}") from error


def remove_report(path: Path) -> None:
    """Delete an earlier run's report, if there is one; LogError where that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LogError(f"cannot delete {path}: {first_line(error)}") from error


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
        self._lines = _Appended(run / "log.jsonl")
        self._lines.end_line()
        self._board = _Board(run / "tensorboard") if config.tensorboard else None
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


class _Appended:
    """A file opened for appending without a buffer, so that a write that fails fails at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _writing(path):
            # Without O_NONBLOCK a FIFO would wait for a reader.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
            self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)

    def write(self, content: bytes) -> None:
        with _writing(self._path):
            if self._file.write(content) != len(content):
                raise OSError("only a part could be written; the disk may be full")

    def end_line(self) -> None:
        """End the last line if a killed process or a full disk left it incomplete."""
        with _writing(self._path):
            size = self._file.seek(0, os.SEEK_END)
            if size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
                self._file.write(b"\n")

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class _Board:
    """A TensorBoard file, written in the calling thread: the thread of TensorBoard's own writers
    would end with a traceback when the disk is full."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        self._file = _Appended(folder / name)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        summary = Summary(
            value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogError(f"cannot write {path}: {first_line(error)}") from error


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
