"""What the benchmarks share: timing, ratios, memory, and tables.

Importing it loads no torch, because some of them measure the memory of a process without it.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def synchronize(device: "torch.device") -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def seconds_of(action: Callable[[], object], device: "torch.device") -> float:
    """The seconds that one call takes, including the work that it queues on the device."""
    synchronize(device)
    started = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - started


def seconds_per_call(action: Callable[[], object], device: "torch.device", seconds: float) -> float:
    """Mean seconds per call of as many calls as fit into ``seconds``, at least one.

    A first call warms up and a second one gives the number of calls; neither is counted.
    """
    action()
    calls = max(1, int(seconds / seconds_of(action, device)))
    return seconds_of(lambda: [action() for _ in range(calls)], device) / calls


def median_ratio(base: Sequence[float], own: Sequence[float]) -> float:
    """The median over the rounds of ``base / own``, each (rounds,) seconds."""
    return statistics.median(b / o for b, o in zip(base, own, strict=True))


def peak_memory() -> float:
    """Peak resident memory of this process, MB; unlike ru_maxrss, without that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; all columns but the first are aligned to the right."""
    lines = [markdown_row(columns), "|---" + "|--:" * (len(columns) - 1) + "|"]
    return "\n".join([*lines, *map(markdown_row, rows)])


def markdown_row(cells: Sequence[str]) -> str:
    """One row of a markdown table."""
    return f"| {' | '.join(cells)} |"
