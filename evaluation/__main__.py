"""`python -m evaluation`: fit detectors, change the classes that they know, export them, and
reproduce published results."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evaluation.config import CovarianceOptions
from evaluation.detectors.options import (
    AddClassConfig,
    ComputeOptions,
    ExportConfig,
    FitConfig,
    FitSubject,
    RuleOptions,
    SelectionOptions,
    ThresholdOptions,
)
from evaluation.reproduction.options import ReproduceConfig, ReproduceOptions, ReproduceSubject
from model.config import PreprocessingOptions
from model.errors import ModelError
from runtime.command import Parser, run_command
from runtime.errors import ConfigError
from runtime.options import add_options, from_options


@dataclass(frozen=True)
class Command:
    """A command of ``python -m evaluation``.

    Attributes:
        summary: its help.
        add_options: adds its arguments to a parser.
        run: runs it and returns the exit status; imports torch only then.
    """

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status; 1 where an image could not be read, or a
    published setting not be evaluated."""
    return run_command(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m evaluation", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, command in _COMMANDS.items():
        command.add_options(
            commands.add_parser(
                name, help=command.summary, description=command.summary, allow_abbrev=False
            )
        )
    arguments = parser.parse_args(argv)
    return _COMMANDS[arguments.command].run(arguments)


def _fit_options(parser: argparse.ArgumentParser) -> None:
    for title, kind in {
        "what is fitted": FitSubject,
        "which references are used, if they are in a pack": SelectionOptions,
        "how images are compared with them": RuleOptions,
        "how the threshold is chosen": ThresholdOptions,
        "what whitened-cosine learns from": CovarianceOptions,
        "how images are prepared (default: as trained)": PreprocessingOptions,
        "how it is run": ComputeOptions,
    }.items():
        add_options(parser.add_argument_group(title), kind)


def _fit(arguments: argparse.Namespace) -> int:
    try:
        config = from_options(FitConfig, arguments)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    from evaluation.detectors.fitting import fit

    return fit(config)


def _add_class_options(parser: argparse.ArgumentParser) -> None:
    _changing(parser)
    parser.add_argument("images", type=Path, help="a pack, or a folder of images of the class")
    for title, kind in {
        "which images are used, if they are in a pack": SelectionOptions,
        "how it is run": ComputeOptions,
    }.items():
        add_options(parser.add_argument_group(title), kind)


def _add_class(arguments: argparse.Namespace) -> int:
    config = from_options(AddClassConfig, arguments)
    from evaluation.detectors.class_changes import add_class

    return add_class(arguments.detector, arguments.name, arguments.images, config)


def _changing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", type=Path, help="folder of the detector, which is changed")
    parser.add_argument("name", help="name of the class")


def _remove_class(arguments: argparse.Namespace) -> int:
    from evaluation.detectors.class_changes import remove_class

    return remove_class(arguments.detector, arguments.name)


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", type=Path, help="folder of the detector")
    add_options(parser.add_argument_group("options"), ExportConfig)


def _export(arguments: argparse.Namespace) -> int:
    config = from_options(ExportConfig, arguments)
    from evaluation.detectors.export import export

    return export(arguments.detector, config)


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    for title, kind in {
        "what is evaluated": ReproduceSubject,
        "how it is run": ReproduceOptions,
    }.items():
        add_options(parser.add_argument_group(title), kind)


def _reproduce(arguments: argparse.Namespace) -> int:
    config = from_options(ReproduceConfig, arguments)
    from evaluation.reproduction.run import reproduce

    return reproduce(config)


_COMMANDS = {
    "fit": Command(
        "fit a detector: references of the known classes and a threshold", _fit_options, _fit
    ),
    "add-class": Command(
        "add a known class to a detector, without training", _add_class_options, _add_class
    ),
    "remove-class": Command("remove a known class from a detector", _changing, _remove_class),
    "export": Command(
        "export a detector as a model for onnxruntime or torch.export", _export_options, _export
    ),
    "reproduce": Command(
        "evaluate published settings, and show the results beside the published ones",
        _reproduce_options,
        _reproduce,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
