"""Progress of a long phase: a bar on a terminal, elsewhere a line every 30 seconds."""

import sys
import time
from datetime import timedelta
from types import TracebackType

from tqdm import tqdm

from runtime.distributed import Process

INTERVAL = 30.0  # seconds between two lines


class Progress:
    """Reports the first process's part of a phase on standard error, with the time left.

    Args:
        name: what is being done, such as ``features``.
        total: items of this process.
        unit: one of them, such as ``image``.
        process: this process.

    Attributes:
        done: items counted so far.
    """

    def __init__(self, name: str, total: int, unit: str, process: Process) -> None:
        self._name, self._total, self._unit = name, total, unit
        self.done = 0
        self._started = self._reported = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self._lines = process.is_first and not on_terminal
        self._bar = tqdm(
            total=total,
            desc=name,
            unit=unit,
            unit_scale=True,
            disable=not (process.is_first and on_terminal),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """Count ``count`` more items as done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._lines and now - self._reported >= INTERVAL and self.done < self._total:
            self._reported = now
            left = (now - self._started) / self.done * (self._total - self.done)
            print(
                f"{self._name}: {self.done:,} of {self._total:,} {self._unit}s, "
                f"about {timedelta(seconds=round(left))} left",
                file=sys.stderr,
                flush=True,
            )
