"""Command-line options from the fields of a dataclass; imports nothing slow."""

import argparse
import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser

from runtime.command import natural, positive

T = TypeVar("T")

_METAVARS = {int: "N", float: "X", str: "NAME", Path: "PATH"}


def add_options(group: argparse._ArgumentGroup, kind: type) -> None:
    """Add an option per field of the dataclass ``kind``; ``--batch-size`` sets ``batch_size``.

    Types and defaults are those of the fields, help texts those of the docstring's attributes. A
    bool is a switch and a tuple takes several values, those of a repeated option together where
    there is no other default than None. An int is a whole number from 1 up, or from
    0 if that is its default. A field's metadata may name another argparse type as ``type``.
    """
    hints = typing.get_type_hints(kind)
    helps = {
        attribute.arg_name: attribute.description or ""
        for base in kind.__mro__
        for attribute in docstring_parser.parse(base.__doc__ or "").params
    }
    for field in dataclasses.fields(kind):
        option = f"--{field.name.replace('_', '-')}"
        group.add_argument(option, **_keywords(field, hints[field.name], helps[field.name]))


def from_options(kind: type[T], options: argparse.Namespace) -> T:
    """The dataclass ``kind`` from ``options``, among which are those that ``add_options`` added."""
    values = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    }
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def _keywords(field: "dataclasses.Field[Any]", hint: Any, explanation: str) -> dict[str, Any]:
    """The arguments of ``add_argument`` for a field of type ``hint``."""
    explanation = " ".join(explanation.replace("``", "").rstrip(".").split()).replace("%", "%%")
    if hint is bool:
        return {"action": "store_true", "help": explanation}
    keywords: dict[str, Any] = {"required": field.default is dataclasses.MISSING}
    if not keywords["required"]:
        keywords["default"] = field.default
    if type(None) in typing.get_args(hint):
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple:
        hint, *others = typing.get_args(hint)
        keywords["nargs"] = "+" if others == [...] else 1 + len(others)
        if others == [...] and keywords.get("default") is None:
            keywords["action"] = "extend"
    if typing.get_origin(hint) is typing.Literal:
        keywords["choices"] = typing.get_args(hint)
    else:
        keywords["metavar"] = _METAVARS[hint]
        whole = natural if field.default == 0 else positive
        keywords["type"] = field.metadata.get("type", whole if hint is int else hint)
    return keywords | {"help": explanation + _default(field.default)}


def _default(value: Any) -> str:
    if value is None or value is dataclasses.MISSING:
        return ""
    return f" (default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"
