"""The training step on an idle machine and beside another busy process, by how OpenMP threads wait.

    python -m benchmarks.threads --pack packs/demo [--config configs/quickstart_backbone.yaml]

default   as libgomp has it: threads that wait for one another spin 300,000 times before they sleep
commands  as train_ddp.py and evaluate.py set it: they spin 1,000 times
passive   OMP_WAIT_POLICY=PASSIVE: they sleep at once

Each way is measured in a process of its own, in turn, --rounds times, first idle and then beside a
process that uses one core; medians count. The fair share beside it is that of n threads, one per
core, among n + 1. Takes about 3 minutes on 2 cores.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.harness import markdown_table
from runtime.command import limit_spinning

WAYS = ("default", "commands", "passive")
_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_BUSY = [sys.executable, "-c", "while True: pass"]


def main() -> int:
    options = _options()
    for name in _VARIABLES:
        os.environ.pop(name, None)
    rates: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # it has yet to load libgomp
                rates[way].append(pool.submit(_measure, way, options).result())
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, fair share {cores / (cores + 1):.0%}, load {os.getloadavg()[0]:.1f}\n")
    columns = ("threads", "idle, pairs/s", "beside a busy process", "share", "idle x default")
    medians = {way: [statistics.median(x) for x in zip(*rates[way], strict=True)] for way in WAYS}
    print(
        markdown_table(
            columns,
            (
                (way, f"{idle:,.0f}", f"{busy:,.0f}", f"{busy / idle:.0%}", f"{idle / base:.2f}")
                for base in [medians["default"][0]]
                for way, (idle, busy) in medians.items()
            ),
        )
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", required=True, help="the pack to read")
    parser.add_argument(
        "--config", default="configs/quickstart_backbone.yaml", help="a training recipe"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    return parser.parse_args()


def _measure(way: str, options: argparse.Namespace) -> tuple[float, float]:
    """Pairs/s of the training step, idle and beside a busy process; runs in a new process."""
    if way == "commands":
        limit_spinning()
    elif way == "passive":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # These import torch, which reads the environment.
    from benchmarks.training import our_step, recipe
    from runtime.distributed import process_group
    from training.data import load_pairs
    from training.scaling import resolve

    config = resolve(recipe(options.config, options.pack, ["--input.device=cpu"]), 1, None)
    with process_group("cpu") as process:
        step = our_step(config, process, load_pairs(config), synthetic=False)

        def rate() -> float:
            started, steps = time.perf_counter(), 0
            while time.perf_counter() < started + options.seconds:
                step()
                steps += 1
            return steps * config.train.global_batch / (time.perf_counter() - started)

        rate()  # warms up
        idle = rate()
        busy = subprocess.Popen(_BUSY)
        try:
            return idle, rate()
        finally:
            busy.kill()
            busy.wait()


if __name__ == "__main__":
    sys.exit(main())
