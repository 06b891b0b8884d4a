"""Configuration: a dataclass filled from a YAML file and from dotted options."""

import argparse
import dataclasses
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from runtime import untrusted
from runtime.errors import ConfigError, first_line

T = TypeVar("T")

_WRONG_TYPE = re.compile(  # jsonargparse names Python's types, and repeats itself
    r'Parser key "(?P<key>[\w.]+)": '
    r".*(Got value|Given value|import path string|import path format): (?P<value>.*)"
)
_WRONG_ELEMENT = re.compile(  # of a list of dataclasses
    r'Parser key "(?P<key>[\w.]+)": Problem with given class_path \S+: '
    r'(Parser key "(?P<field>\w+)": )?(?P<problem>.*)'
)
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
}


class _HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, and leaves out that each group of keys may be a file."""

    def add_argument(self, action: argparse.Action) -> None:
        if action.metavar != "CONFIG" or action.dest == "config":
            super().add_argument(action)


def load_config(kind: type[T], arguments: Sequence[str], *, prog: str, description: str) -> T:
    """Fill the dataclass ``kind`` from ``--config FILE`` and options such as ``--train.clip=1``.

    Options override the file, whatever their order. Keys, types, defaults and descriptions are
    those of the dataclass and of the dataclasses in it. A top-level field of type bool is a
    switch without a value: ``--dry-run`` and ``--dry_run`` stand for ``--dry_run=true``.

    Raises:
        ConfigError: an unknown key, a value of another type, a missing file or required key, or a
            ValueError from a dataclass's own checks.
        SystemExit: ``--help`` was asked for.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise ConfigError(f"{argument!a} is not valid text here; set LC_ALL=C.UTF-8")
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s [-h] [--config FILE] [--KEY=VALUE ...]",
        description=description,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with the keys below")
    parser.add_class_arguments(kind, as_group=False)
    switches = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.type is bool
    ]
    # To jsonargparse a later file overrides an earlier option, which nobody expects.
    files, options = _split_files([_spelled_out(argument, switches) for argument in arguments])
    for file in files:
        _check_file(Path(file.removeprefix("--config=")))
    try:
        values = parser.parse_args([*files, *options])
        values.pop("config", None)
        return kind(**vars(parser.instantiate(values)))
    except (jsonargparse.ArgumentError, ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{_one_line(error, kind)}; {prog} --help lists the keys") from error


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as the dictionaries, lists and scalars of a YAML document."""
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
            files.append(f"--config={next(rest, '')}")
        elif argument.startswith("--config="):
            files.append(argument)
        else:
            options.append(argument)
    return files, options


def _check_file(path: Path) -> None:
    """Refuse files on which the parser's YAML library, written in C, would crash or hang."""
    try:
        untrusted.read_yaml_mapping(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {first_line(error)}") from error


def _spelled_out(argument: str, switches: Sequence[str]) -> str:
    name, equals, value = argument.removeprefix("--").partition("=")
    name = name.replace("-", "_")
    if not argument.startswith("--") or name not in switches:
        return argument
    return f"--{name}={value if equals else 'true'}"


def _one_line(error: Exception, kind: type) -> str:
    message = " ".join(str(error).split())
    if element := _WRONG_ELEMENT.fullmatch(message):
        if not element["field"]:
            return f"{element['key']}: {element['problem']}"
        message = f'Parser key "{element["key"]}.{element["field"]}": {element["problem"]}'
    wrong = _WRONG_TYPE.fullmatch(message)
    wanted = wrong and _wanted(kind, wrong["key"])
    return f"{wrong['key']} must be {wanted}, not {wrong['value']}" if wrong and wanted else message


def _wanted(kind: Any, key: str) -> str | None:
    """The type of the field with the dotted name ``key``, in words; None if there is none."""
    for name in key.split("."):
        if typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        if not dataclasses.is_dataclass(kind):
            return None
        kind = typing.get_type_hints(kind).get(name)
    if dataclasses.is_dataclass(kind):
        return "a mapping of keys to values"
    optional = type(None) in typing.get_args(kind)
    if optional:
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        words = "one of " + ", ".join(map(str, typing.get_args(kind)))
    elif origin is tuple:
        elements = typing.get_args(kind)
        if dataclasses.is_dataclass(elements[0]):
            return f"a list of {{{', '.join(f.name for f in dataclasses.fields(elements[0]))}}}"
        example = "[a, b]" if str in elements else "[1, 2]"
        words = f"a list {'' if ... in elements else f'of {len(elements)} '}such as {example}"
    else:
        words = _WORDS.get(kind, "")
    return (words + " or null" if optional else words) if words else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
