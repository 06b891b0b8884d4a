"""Measures the input rate on this machine, without a model to feed."""

import time

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from pipelines.loader import PairLoader


def bench(loader: PairLoader, steps: int, title: str) -> None:
    """Time ``steps`` training batches and print a table."""
    first = next(loader)
    num_pairs, num_images = steps * len(first.different), steps * len(first.images)
    seconds = []
    cpu = time.process_time()
    for _ in tqdm(range(steps), unit="step", disable=None):
        start = time.perf_counter()
        next(loader)
        if first.images.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    table = Table("input", "value", title=title)
    table.add_row("pairs/s", f"{num_pairs / sum(seconds):.0f}")
    table.add_row("images/s", f"{num_images / sum(seconds):.0f}")
    table.add_row("CPU seconds per 1,000 images", f"{cpu / num_images * 1000:.2f}")
    table.add_row("slowest step, ms", f"{max(seconds) * 1000:.0f}")
    Console().print(table)
