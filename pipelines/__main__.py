"""`python -m pipelines show PACK` draws pairs as the model sees them, `bench PACK` times them."""

import argparse
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from pipelines.config import AugmentConfig, InputConfig
from pipelines.graph import MEAN, STD
from pipelines.loader import PairLoader
from pipelines.pack import Pack
from pipelines.plan import PairPlan
from pipelines.selection import Selection
from runtime.command import Parser, run_command
from runtime.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from error
    return 0


def show(arguments: argparse.Namespace) -> None:
    """Draw the first pairs of the plan, as they reach the model, on one page."""
    if arguments.pairs < 1:
        raise ConfigError("--pairs must be at least 1")
    pack, loader = _loader(arguments, arguments.pairs)
    batch = next(loader)
    keys = pack.keys(batch.rows)
    images = _pixels(batch.images)
    names = pack.manifest.classes
    labels = pack.index.label[batch.rows]
    rows = -(-arguments.pairs // 4)
    figure, axes = plt.subplots(rows, 8, figsize=(14, 2.3 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number in range(arguments.pairs):
        relation = "different" if batch.different[number] else "same class"
        for side, place in enumerate((number, number + arguments.pairs)):
            axis = axes[number // 4, number % 4 * 2 + side]
            axis.imshow(images[place])
            role = "anchor" if side == 0 else f"partner: {relation}"
            colour = "tab:red" if batch.different[number] else "tab:green"
            axis.set_title(
                f"{role}\n{names[labels[place]]}\n{keys[place]}", fontsize=7, color=colour
            )
    figure.suptitle(f"{pack.manifest.dataset}: {arguments.pairs} pairs of seed {arguments.seed}")
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=100)
    print(f"{arguments.pairs} pairs drawn on {arguments.out}")


def bench(arguments: argparse.Namespace) -> None:
    """Time the input on this machine, with nothing else to do."""
    _, loader = _loader(arguments, arguments.global_batch)
    next(loader)
    seconds = []
    cpu = time.process_time()
    for _ in tqdm(range(arguments.steps), unit="step", disable=None):
        start = time.perf_counter()
        next(loader)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    pairs = arguments.steps * arguments.global_batch
    table = Table("input", "value", title=str(arguments.pack))
    table.add_row("pairs/s", f"{pairs / sum(seconds):.0f}")
    table.add_row("images/s", f"{2 * pairs / sum(seconds):.0f}")
    table.add_row("CPU seconds per 1,000 images", f"{cpu / (2 * pairs) * 1000:.2f}")
    table.add_row("slowest step, ms", f"{max(seconds) * 1000:.0f}")
    Console().print(table)


def _loader(arguments: argparse.Namespace, global_batch: int) -> tuple[Pack, PairLoader]:
    pack = Pack(arguments.pack)
    rows = Selection(splits=arguments.splits).rows(pack)
    plan = PairPlan(
        pack.index.label[rows], seed=arguments.seed, num_negatives=arguments.num_negatives
    )
    config = InputConfig(device=arguments.device, image_size=arguments.image_size)
    return pack, PairLoader(pack, rows, plan, AugmentConfig(), config, global_batch=global_batch)


def _pixels(images: torch.Tensor) -> np.ndarray:
    """Normalised images (n, 3, S, S) as uint8 (n, S, S, 3)."""
    pixels = images.float().cpu().permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)
    return pixels.round().clamp(0, 255).to(torch.uint8).numpy()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pipelines",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, summary in (
        (show, "draw a contact sheet of pairs as the model sees them"),
        (bench, "print the input rate on this machine"),
    ):
        command = commands.add_parser(
            run.__name__, help=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        command.set_defaults(run=run)
        command.add_argument("pack", type=Path, help="folder of the pack")
        command.add_argument("--image-size", type=int, default=224, help="pixels")
        command.add_argument("--num-negatives", type=int, default=20, help="for each positive")
        command.add_argument("--splits", nargs="+", help="splits of the pack; all when left out")
        command.add_argument("--seed", type=int, default=0, help="of the plan of pairs")
        command.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
        if run is show:
            command.set_defaults(num_negatives=1)
            command.add_argument("--out", type=Path, default=Path("pairs.png"), help="image file")
            command.add_argument("--pairs", type=int, default=16, help="pairs on the page")
        else:
            command.add_argument("--global-batch", type=int, default=128, help="pairs a step")
            command.add_argument("--steps", type=int, default=30, help="steps that are timed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
