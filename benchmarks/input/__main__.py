"""How fast images reach the training step, side by side with other ways of loading them.

    python -m benchmarks.input --images FOLDER_OF_JPEGS [--rounds 3] [--threads 2]

Each way runs in a process of its own, the ways in turn, several rounds; the table shows medians.
All decode the same images (each found file copied until there are --count) from a warm cache with
the same number of threads or workers, crop, resize to 224, jitter and normalize as the paper does
unless said otherwise, and deliver torch tensors in batches of 128 images. A second table has the
sums over 1, 2 and 4 processes at once, a third the time to plan the pairs of ImageNet's images.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE

from benchmarks.harness import markdown_table, peak_memory
from benchmarks.input.dali_ways import device
from benchmarks.input.packs import prepare
from benchmarks.input.ways import WAYS

WARM_UP = 3


def measure(way: str, work: Path, threads: int, images: int) -> dict[str, float]:
    """Run one way in this process: images/s, CPU seconds per 1,000 images, peak memory in MB."""
    started = time.perf_counter()
    batches = WAYS[way](work, threads)
    next(batches)
    first = time.perf_counter() - started
    for _ in range(WARM_UP):
        next(batches)
    cpu, start, count = _cpu_seconds(), time.perf_counter(), 0
    while count < images:
        count += next(batches)
    seconds = time.perf_counter() - start
    cpu = _cpu_seconds() - cpu
    return {
        "images/s": count / seconds,
        "cpu": cpu / count * 1000,
        "memory": peak_memory(),
        "first": first,
    }


def _cpu_seconds() -> float:
    """CPU time of this process and of its children, ended ones included, in seconds."""
    ticks = 0.0
    processes = [os.getpid()]
    for pid in processes:
        for task in Path(f"/proc/{pid}/task").iterdir():
            processes += [int(child) for child in (task / "children").read_text().split()]
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        ticks += sum(map(int, fields[11:15]))  # user and system, its own and of ended children
    return ticks / os.sysconf("SC_CLK_TCK")


def _start(way: str, work: Path, threads: int, images: int) -> subprocess.Popen[str]:
    """Start a process, at the head of a group of its own, that measures one way."""
    command = [sys.executable, "-m", "benchmarks.input", "--way", way]
    command += ["--work", str(work), "--threads", str(threads), "--measured", str(images)]
    return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, float] | None:
    """What the process measured, or None and one line on standard error; ends its process group."""
    output, errors = process.communicate()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers run for seconds without their parent
    if process.returncode:
        print(f"left out: {errors.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(output.splitlines()[-1])


def run_all(arguments: argparse.Namespace, work: Path) -> dict[str, list[dict[str, float]]]:
    """Every way in turn, ``arguments.rounds`` times; a way that cannot be imported is left out."""
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(arguments.rounds):
        for way in arguments.ways or WAYS:
            if number and way not in results:
                continue
            print(f"round {number + 1}: {way}: ", end="", file=sys.stderr, flush=True)
            measured = _finish(_start(way, work, arguments.threads, arguments.measured))
            if measured:
                results.setdefault(way, []).append(measured)
                print(f"{measured['images/s']:.0f} images/s", file=sys.stderr)
    return results


def scaling(arguments: argparse.Namespace, work: Path) -> str:
    """A markdown table of the sums over 1, 2 and 4 processes at once that share the threads."""
    rows = []
    for processes in (1, 2, 4):
        threads, images = max(1, arguments.threads // processes), arguments.measured // processes
        running = [_start("ours", work, threads, images) for _ in range(processes)]
        measured = [one for process in running if (one := _finish(process))]
        rate, memory = (sum(one[key] for one in measured) for key in ("images/s", "memory"))
        rows.append((f"{processes}", f"{rate:.0f}", f"{memory:.0f}"))
    return markdown_table(("processes", "images/s", "peak MB"), rows)


def planning(rounds: int) -> str:
    """A markdown table of the time to make a plan of ImageNet's images, and of two packs of as
    many, each with classes and a weight of its own."""
    import numpy as np

    from pipelines.plan import PairPlan

    one = np.random.default_rng(0).permutation(np.arange(1_281_167, dtype=np.int32) % 1000)
    rows = []
    for name, labels in (("one pack", one), ("two packs", np.concatenate([one, 1000 + one]))):
        weights = np.where(labels < 1000, 1.0, 2.0)
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            PairPlan(labels, weights, seed=0)
            seconds.append(time.perf_counter() - start)
        rows.append((name, f"{len(labels):,}", f"{statistics.median(seconds):.2f}"))
    return markdown_table(("plan of", "images", "s"), rows)


def report(results: dict[str, list[dict[str, float]]], reference: str) -> str:
    """A markdown table of medians, with ratios of each round's rate to the reference's."""
    columns = ["way", "images/s", "pairs/s", "CPU s per 1,000 images", "peak MB", "first batch s"]
    rows = []
    for way, runs in results.items():

        def median(key: str, runs: list[dict[str, float]] = runs) -> float:
            return statistics.median(run[key] for run in runs)

        ratio = statistics.median(
            run["images/s"] / base["images/s"]
            for run, base in zip(runs, results[reference], strict=False)
        )
        rate = median("images/s")
        rates = (f"{rate:.0f}", f"{rate / 2:.0f}", f"{median('cpu'):.2f}")
        costs = (f"{median('memory'):.0f}", f"{median('first'):.1f}", f"{ratio:.2f}")
        rows.append((way, *rates, *costs))
    return markdown_table((*columns, f"x {reference}"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder of JPEG files, searched in depth")
    parser.add_argument("--count", type=int, default=1024, help="files to copy them to")
    parser.add_argument("--measured", type=int, default=2500, help="images timed each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measured = measure(arguments.way, arguments.work, arguments.threads, arguments.measured)
        print(json.dumps(measured), flush=True)
        os._exit(0)  # worker processes of endless loaders do not join
    if not arguments.images:
        parser.error("--images is needed: a folder of JPEG files")
    with tempfile.TemporaryDirectory() as work:
        prepare(arguments.images, Path(work), arguments.count)
        results = run_all(arguments, Path(work))
        scaled = scaling(arguments, Path(work))
    reference = "original (Pillow)" if "original (Pillow)" in results else next(iter(results))
    print(f"{arguments.threads} threads or workers, {device()}, {arguments.rounds} rounds\n")
    print(report(results, reference))
    if device() == "cpu":
        print(
            "\nNo GPU is visible. On one the same ways decode on it, in the same table, and ours "
            "should\nreach 0.9 of `DALI decode only`. `python -m benchmarks.training` prints the "
            "share of a step\nspent waiting for data, which should stay below 5 %."
        )
    print(f"\nours, {arguments.threads} threads shared by processes\n\n{scaled}")
    print(f"\n{planning(arguments.rounds)}")


if __name__ == "__main__":
    main()
