"""Configuration: a dataclass filled from a YAML file and from dotted options."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from runtime.errors import ConfigError

T = TypeVar("T")


def load_config(kind: type[T], arguments: Sequence[str], *, prog: str, description: str) -> T:
    """Fill the dataclass ``kind`` from ``--config FILE`` and options such as ``--train.clip=1``.

    Options override the file, whatever their order. Keys, types, defaults and descriptions are
    those of the dataclass and of the dataclasses in it. A field of type bool at the top may be
    given as a bare switch: ``--dry-run`` stands for ``--dry_run=true``.

    Raises:
        ConfigError: an unknown key, a value of another type, a missing file or required key, or a
            ValueError from a dataclass's own checks.
        SystemExit: ``--help`` was asked for.
    """
    parser = jsonargparse.ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with the keys below")
    parser.add_class_arguments(kind, as_group=False)
    switches = {
        "--" + field.name.replace("_", "-"): f"--{field.name}=true"
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.type is bool
    }
    # jsonargparse lets a later file override an earlier option; a file first is what people mean.
    files, options = _split_files([switches.get(argument, argument) for argument in arguments])
    try:
        values = parser.parse_args([*files, *options])
        values.pop("config", None)
        return kind(**vars(parser.instantiate(values)))
    except (jsonargparse.ArgumentError, ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{_one_line(error)}; {prog} --help lists the keys") from error


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as dictionaries, lists and scalars, fit for YAML."""
    return _plain(dataclasses.asdict(config))


def to_yaml(config: Any) -> str:
    """A dataclass as the YAML text that ``load_config`` reads back."""
    return yaml.safe_dump(plain(config), sort_keys=False)


def _split_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    files: list[str] = []
    options: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--config":
            files += [argument, *[value for value in [next(rest, None)] if value is not None]]
        elif argument.startswith("--config="):
            files.append(argument)
        else:
            options.append(argument)
    return files, options


def _one_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
