"""The options of ``evaluate.py``; imports nothing slow, so that help and mistakes are quick."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from evaluation.config import BATCH_SIZE, DEFAULT_EVALUATORS, RESAMPLES, ReferenceConfig
from model.config import EVALUATORS, CropMode, EvaluatorOptions, Interpolation, Precision
from runtime.command import Parser, natural, positive

_OLD_EVALUATORS = {"knn-normalised": "knn-normalized"}  # accepted until the next release
_DEFAULT = " (default: %(default)s)"


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
    several: dict[str, Any] = {"type": Path, "nargs": "+", "action": "extend", "required": True}
    group.add_argument(
        *("--protocol", "--config"),
        help="protocols: YAML files such as configs/benchmarks/demo.yaml, or names of OODDB's such "
        "as ooddb:dtd",
        metavar="YAML",
        **several | {"type": str},
    )
    group.add_argument(
        "--lists",
        help="folder of the protocols' lists of images (default: that of the YAML file)",
        metavar="DIR",
        type=Path,
    )
    group.add_argument(
        "--leave-out-rejected",
        help="evaluate without the listed images that were rejected when the tree was packed",
        action="store_true",
    )
    group.add_argument(
        "--pack", help="one pack for all protocols, or one per data set", metavar="PACK", **several
    )
    group.add_argument(
        "--checkpoint",
        help="a run (its newest checkpoint), a step folder, a weights file, or a folder of the "
        "original's two files",
        metavar="RUN",
        type=Path,
        required=True,
    )
    group.add_argument("--target", help="a target's name, or all" + _DEFAULT, default="all")
    group.add_argument(
        "--out",
        help="folder for the results" + _DEFAULT,
        metavar="DIR",
        type=Path,
        default=Path("runs/evaluation"),
    )
    group.add_argument(
        "--overwrite", help="replace the results in --out, if any", action="store_true"
    )


def _add_scoring(group: argparse._ArgumentGroup) -> None:
    options, references = EvaluatorOptions(), ReferenceConfig()
    group.add_argument(
        "--evaluators",
        help=f"all, or some of {', '.join(EVALUATORS)} (default: {' '.join(DEFAULT_EVALUATORS)})",
        metavar="NAME",
        nargs="+",
        type=_evaluator,
        default=list(DEFAULT_EVALUATORS),
    )
    _number(group, "significant", positive, options.significant, "references per class")
    group.add_argument(
        *("--neighbors", "--neighbours"),
        help="neighbors for the k-NN scores" + _DEFAULT,
        metavar="N",
        type=positive,
        default=options.neighbors,
        action=_Renamed,
    )
    _number(group, "shots", natural, references.shots, "references drawn per class; 0 takes all")
    _number(group, "seed", natural, references.seed, "random seed of the --shots draw")
    group.add_argument(
        "--with-replacement", help="draw the references with replacement", action="store_true"
    )
    _number(
        *(group, "min-references", positive, references.minimum),
        "refuse a class with fewer references",
    )
    _number(
        *(group, "resamples", positive, RESAMPLES),
        "bootstrap resamples for the AUROC's interval",
    )


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
        "--device",
        help="auto takes a GPU where there is one" + _DEFAULT,
        choices=("auto", "cpu", "gpu"),
        default="auto",
    )
    group.add_argument(
        "--precision",
        help="of the networks' arithmetic" + _DEFAULT,
        choices=get_args(Precision),
        default=EvaluatorOptions.precision,
    )
    cpu, gpu = BATCH_SIZE["cpu"], BATCH_SIZE["cuda"]
    _number(
        *(group, "batch-size", natural, 0),
        f"images per batch and process; 0 is {cpu} on a CPU, {gpu} on a GPU",
    )
    _number(
        *(group, "memory", natural, 0),
        "budget of relational scoring in MiB; 0 is 48 on a CPU, a quarter of the free memory on "
        "a GPU",
    )
    group.add_argument(
        "--cache",
        help="folder where features are kept" + _DEFAULT,
        metavar="DIR",
        type=Path,
        default=Path("runs/features"),
    )
    group.add_argument("--no-cache", help="neither read nor keep features", action="store_true")


def _number(
    group: argparse._ArgumentGroup, name: str, kind: Any, default: int, explanation: str
) -> None:
    group.add_argument(
        f"--{name}", help=explanation + _DEFAULT, metavar="N", type=kind, default=default
    )


class _Renamed(argparse.Action):
    """Stores a value, and says so where the option was given by its second, old name."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        new, old = self.option_strings
        if option_string == old:
            _hint(old, new)
        setattr(namespace, self.dest, values)


def _evaluator(name: str) -> str:
    if name in _OLD_EVALUATORS:
        _hint(name, _OLD_EVALUATORS[name])
    name = _OLD_EVALUATORS.get(name, name)
    if name not in (*EVALUATORS, "all"):
        raise argparse.ArgumentTypeError(
            f"no evaluator is called {name}; choose all, or from {', '.join(EVALUATORS)}"
        )
    return name


def _hint(old: str, new: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"hint: {old} is now {new}; the old name goes in the next release", file=sys.stderr)
