"""`python -m pipelines show PACK` draws pairs as the model sees them; `bench PACK` times them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.config import PAPER_PREPROCESSING, Preprocessing
from pipelines.config import AugmentConfig, Decoding, InputConfig, SamplingConfig
from runtime.command import HelpFormatter, Parser, natural, positive, run_command
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.loader import PairLoader
    from pipelines.pack import Pack


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


# torch, DALI and matplotlib take seconds to import; --help and usage errors need none of them.
def _show(arguments: argparse.Namespace) -> None:
    loader, pack = _open(arguments, arguments.pairs)
    from pipelines.show import pair_sheet, save_sheet

    sheet = pair_sheet(next(loader), range(arguments.pairs), pack, PAPER_PREPROCESSING)
    sheet.suptitle(f"{pack.manifest.dataset}: {arguments.pairs} pairs, seed {arguments.seed}")
    save_sheet(sheet, arguments.out)
    print(f"{arguments.pairs} pairs drawn on {arguments.out}")


def _bench(arguments: argparse.Namespace) -> None:
    loader, pack = _open(arguments, arguments.global_batch)
    from pipelines.bench import bench

    bench(loader, arguments.steps, str(pack.path))


def _open(arguments: argparse.Namespace, pairs: int) -> "tuple[PairLoader, Pack]":
    """The pack, and a loader of at least so many pairs per step."""
    try:
        preprocessing = Preprocessing(image_size=arguments.image_size)
        sampling = _sampling(arguments)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    from pipelines.loader import PairLoader
    from pipelines.pack import Pack
    from pipelines.packs import joined
    from pipelines.pairs import PairData, Share
    from pipelines.selection import Selection

    pack = joined([Pack(path) for path in arguments.pack])
    selections = [Selection(splits=arguments.splits)] * len(pack.members)
    if sampling is None:
        negatives = arguments.num_negatives
        data = PairData.select(pack, selections, seed=arguments.seed, num_negatives=negatives)
    else:
        data = PairData.select_groups(pack, selections, sampling, seed=arguments.seed)
    share = Share(-(-pairs // data.plan.pairs_per_position))
    decoding = Decoding(preprocessing, InputConfig(device=arguments.device))
    return PairLoader(data, AugmentConfig(), decoding, share), pack


def _sampling(arguments: argparse.Namespace) -> SamplingConfig | None:
    """The groups that are asked for; None for independent pairs."""
    if arguments.classes is None:
        return None
    return SamplingConfig("classes", arguments.classes, arguments.images, arguments.num_negatives)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m pipelines",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, summary in (
        ("show", _show, "draw a contact sheet of pairs as the model sees them"),
        ("bench", _bench, "print the input rate on this machine"),
    ):
        command = commands.add_parser(name, help=summary, formatter_class=HelpFormatter)
        command.set_defaults(run=run)
        command.add_argument(
            "pack", type=Path, nargs="+", help="folder of a pack; several are read as one"
        )
        command.add_argument(
            "--image-size", type=positive, default=224, help="height and width, pixels"
        )
        command.add_argument(
            "--num-negatives", type=positive, default=20, help="negative pairs per positive pair"
        )
        command.add_argument(
            "--classes",
            type=positive,
            help="draw groups of this many classes, and all pairs of the images of each",
        )
        command.add_argument(
            "--images", type=positive, default=4, help="images of each class, with --classes"
        )
        command.add_argument("--splits", nargs="+", help="splits to draw from; all if omitted")
        command.add_argument("--seed", type=natural, default=0, help="random seed of the pairs")
        command.add_argument(
            "--device",
            choices=("auto", "cpu", "gpu"),
            default="auto",
            help="where images are decoded",
        )
        if run is _show:
            command.set_defaults(num_negatives=1)
            command.add_argument("--out", type=Path, default=Path("pairs.png"), help="image file")
            command.add_argument("--pairs", type=positive, default=16, help="pairs on the page")
        else:
            command.add_argument(
                "--global-batch", type=positive, default=128, help="pairs per step"
            )
            command.add_argument("--steps", type=positive, default=30, help="timed steps")
    return parser


if __name__ == "__main__":
    sys.exit(main())
