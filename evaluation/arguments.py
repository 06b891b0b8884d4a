"""The command line of ``evaluate.py``; imports nothing slow."""

import argparse
from collections.abc import Sequence
from typing import Any

from evaluation.config import (
    ClassifierOptions,
    CovarianceOptions,
    EvaluateConfig,
    NetworkOptions,
    ReferenceConfig,
    RunOptions,
    ScoringOptions,
    Subject,
)
from model.config import PreprocessingOptions
from model.errors import ModelError
from runtime.command import Parser, current_name
from runtime.errors import ConfigError
from runtime.options import add_options

_RENAMED = {"--config": "--protocol", "--neighbours": "--neighbors"}  # accepted until 0.3
_GROUPS = {
    "what is evaluated": Subject,
    "which networks are evaluated": NetworkOptions,
    "how it is scored": ScoringOptions,
    "the classifier that some evaluators need": ClassifierOptions,
    "what whitened-cosine learns from": CovarianceOptions,
    "which references are used": ReferenceConfig,
    "how images are prepared (default: as trained)": PreprocessingOptions,
    "how it is run": RunOptions,
}


def parse(arguments: Sequence[str], description: str) -> EvaluateConfig:
    """The options in ``arguments``.

    Raises:
        ConfigError: they are wrong.
        SystemExit: ``--help`` was asked for.
    """
    parser = Parser(
        prog="evaluate.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for title, kind in _GROUPS.items():
        add_options(parser.add_argument_group(title), kind)
    options = parser.parse_args([current_name(word, _RENAMED) for word in arguments])
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(options).items()
    }
    try:
        config = EvaluateConfig(**values)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    _check_seeds(config)
    return config


def _check_seeds(config: ReferenceConfig) -> None:
    if len(set(config.seed)) < len(config.seed):
        raise ConfigError("--seed has a number twice; each repetition needs another one")
    if len(config.seed) > 1 and not config.shots:
        raise ConfigError("several numbers for --seed repeat the draw of --shots; add --shots N")
