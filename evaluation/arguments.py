"""The options of ``evaluate.py``."""

import argparse
from pathlib import Path
from typing import get_args

from model.config import EVALUATORS, CropMode, Interpolation
from runtime.command import Parser, natural, positive

DEFAULT_EVALUATORS = ("relation-softmax", "relation-logit", "cosine")


def build_parser(description: str) -> argparse.ArgumentParser:
    """The parser; its errors are ConfigErrors."""
    parser = Parser(
        prog="evaluate.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_inputs(parser.add_argument_group("what is evaluated"))
    _add_scoring(parser.add_argument_group("how it is scored"))
    _add_preprocessing(parser.add_argument_group("how images are prepared (default: as trained)"))
    _add_running(parser.add_argument_group("how it is run"))
    return parser


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config", type=Path, nargs="+", action="extend", required=True, metavar="YAML",
        help="protocols, such as configs/benchmarks/demo.yaml",
    )  # fmt: skip
    group.add_argument(
        "--pack", type=Path, nargs="+", action="extend", required=True, metavar="PACK",
        help="one pack for all protocols, or a pack for each data set",
    )  # fmt: skip
    group.add_argument(
        "--checkpoint", type=Path, required=True, metavar="RUN",
        help="a run (its newest checkpoint), a step folder, or a weights file",
    )  # fmt: skip
    group.add_argument("--target", default="all", help="a target's name, or all (default)")
    group.add_argument(
        "--out", type=Path, default=Path("runs/evaluation"), metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )  # fmt: skip


def _add_scoring(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--evaluators", nargs="+", default=list(DEFAULT_EVALUATORS), metavar="NAME",
        help=f"all, or some of {', '.join(EVALUATORS)} (default: {' '.join(DEFAULT_EVALUATORS)})",
    )  # fmt: skip
    group.add_argument(
        "--significant", type=positive, default=5, metavar="N",
        help="references a class for significant-* (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--neighbours", type=positive, default=50, metavar="K",
        help="neighbours for the k-NN scores (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--shots", type=natural, default=0, metavar="N",
        help="references drawn for each class; 0 takes all (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--seed", type=natural, default=0, help="of that draw (default: 0)")
    group.add_argument(
        "--with-replacement", action="store_true", help="draw the references with replacement"
    )
    group.add_argument(
        "--min-references", type=positive, default=2, metavar="N",
        help="refuse a class with fewer references (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--resamples", type=positive, default=1000, metavar="N",
        help="bootstrap resamples for the AUROC's interval (default: %(default)s)",
    )  # fmt: skip


def _add_preprocessing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image-size", type=positive, metavar="PIXELS",
        help="height and width of the network's input",
    )  # fmt: skip
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help="on a scale of 0 to 1"
        )
    group.add_argument("--interpolation", choices=get_args(Interpolation))
    group.add_argument("--crop-mode", choices=get_args(CropMode))
    group.add_argument(
        "--crop-pct", type=float, metavar="SHARE",
        help="size of the input as a share of the side to which an image is resized first",
    )  # fmt: skip


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto",
        help="auto takes the GPU where there is one (default)",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32",
        help="of the networks' arithmetic (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--batch-size", type=natural, default=0, metavar="N",
        help="images a batch and a process; 0 is 8 on a CPU, 256 on a GPU (default)",
    )  # fmt: skip
    group.add_argument(
        "--memory", type=natural, default=0, metavar="MIB",
        help="budget of relational scoring in MiB; 0 is 48 on a CPU, a quarter of the free memory "
        "on a GPU (default)",
    )  # fmt: skip
    group.add_argument(
        "--cache", type=Path, default=Path("runs/features"), metavar="DIR",
        help="folder where features are kept (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--no-cache", action="store_true", help="neither read nor keep features")
