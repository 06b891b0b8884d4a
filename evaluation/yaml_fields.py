"""Reads YAML files that others may have written, within bounds, and checks the type of each value.

Every error names the file, the place in it and what was expected there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from runtime.errors import ConfigError
from runtime.untrusted import read_text

_MAX_VALUES = 200_000
_SHOWN = 40  # characters of a value in a message
_TAG = "tag:yaml.org,2002:"
_SCALARS = ("str", "int", "float", "bool", "null")
_KINDS = {bool: "a switch", int: "a number", float: "a number", dict: "a mapping", list: "a list"}


@dataclass(frozen=True)
class Fields:
    """A mapping of the file.

    Attributes:
        where: the file and the mapping's place in it, for messages.
        values: by key.
    """

    where: str
    values: dict[str, Any]

    @staticmethod
    def read(path: Path) -> "Fields":
        """The mapping that a YAML file holds.

        Aliases are copied, at most 200,000 values in all; merge keys are not supported.

        Raises:
            ConfigError: the file cannot be read, is not YAML, repeats a key, stands for too many
                values, or does not hold a mapping.
        """
        try:
            node = yaml.compose(read_text(path), yaml.SafeLoader)
            content = None if node is None else _Expansion().value(node)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise ConfigError(f"cannot read {path}: {reason}") from error
        return Fields._of(content, str(path))

    def expect(self, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Raise ConfigError unless all ``required`` keys and no unknown keys are there."""
        known = (*required, *optional)
        if unknown := [key for key in self.values if key not in known]:
            self.fail(f"unknown key {_shown(unknown[0])}; the keys are {', '.join(known)}")
        if missing := [key for key in required if key not in self.values]:
            self.fail(f"the key {missing[0]} is missing; expected {', '.join(required)}")

    def word(self, key: str) -> str:
        """A non-empty name."""
        value = self.values[key]
        if not isinstance(value, str) or not value:
            self.fail(f"{key} is {_kind(value)}, expected a name{_quotes(value)}")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A non-empty list of distinct names."""
        for value in (values := self.items(key)):
            if not isinstance(value, str) or not value:
                self.fail(f"{key} holds {_kind(value)}, expected names{_quotes(value)}")
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            self.fail(f"{key} names {_shown(twice)} twice")
        return tuple(values)

    def items(self, key: str) -> list[Any]:
        """A non-empty list."""
        value = self.values[key]
        if not isinstance(value, list):
            example = f"[{value}]" if isinstance(value, str) else "[a, b]"
            self.fail(f"{key} is {_kind(value)}, expected a list such as {_cut(example)}")
        if not value:
            self.fail(f"{key} is an empty list")
        return value

    def number(self, key: str, kind: type[int] | type[float], low: float, high: float) -> Any:
        """A number from ``low`` to ``high``; an int where ``kind`` is int."""
        value = self.values[key]
        fits = isinstance(value, int if kind is int else int | float) and low <= value <= high
        if isinstance(value, bool) or not fits:
            words = "a whole number" if kind is int else "a number"
            self.fail(f"{key} is {_kind(value)}, expected {words} from {low} to {high}")
        return value

    def switch(self, key: str) -> bool:
        """true or false."""
        value = self.values[key]
        if not isinstance(value, bool):
            self.fail(f"{key} is {_kind(value)}, expected true or false")
        return value

    def mapping(self, key: str) -> "Fields":
        """A non-empty mapping of names to values."""
        return Fields._of(self.values[key], f"{self.where}: {key}")

    def mappings(self, key: str) -> list["Fields"]:
        """A non-empty list of mappings."""
        return [
            Fields._of(value, f"{self.where}: {key}: item {number}")
            for number, value in enumerate(self.items(key), 1)
        ]

    def fail(self, reason: str) -> NoReturn:
        """Raise ConfigError for this place of the file."""
        raise ConfigError(f"{self.where}: {reason}")

    @staticmethod
    def _of(value: Any, where: str) -> "Fields":
        if not isinstance(value, dict) or not value:
            raise ConfigError(f"{where}: expected a mapping of names to values, not {_kind(value)}")
        for key in value:
            if not isinstance(key, str) or not key:
                raise ConfigError(f"{where}: the key {_shown(key)} is not a name{_quotes(key)}")
        return Fields(where, value)


class _Expansion:
    """Turns YAML nodes into plain values, each alias into a copy."""

    def __init__(self) -> None:
        self._scalars = yaml.constructor.SafeConstructor()
        self._count = 0

    def value(self, node: yaml.Node) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise ValueError(f"with its aliases it stands for more than {_MAX_VALUES:,} values")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> str | int | float | bool | None:
        kind = node.tag.removeprefix(_TAG)
        try:
            value = self._scalars.construct_object(node) if kind in _SCALARS else NotImplemented
        except (ValueError, KeyError):
            value = NotImplemented
        if value is NotImplemented or (isinstance(value, int) and abs(value) >= 2**63):
            line, text = node.start_mark.line + 1, _shown(node.value)
            raise ValueError(
                f"line {line}: {text} is neither a name nor a number; put it in quotes"
            )
        return value

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                raise ValueError(f"line {line}: merge keys (<<) are not supported")
            key = self.value(key_node)
            if isinstance(key, dict | list):
                raise ValueError(f"line {line}: a key is {_kind(key)}, expected a name")
            if key in values:
                raise ValueError(f"line {line}: the key {_shown(key)} appears twice")
            values[key] = self.value(value_node)
        return values


def _kind(value: Any) -> str:
    """A value in the words of a message; lists and mappings are never written out."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the word {_shown(value)}" if value else "an empty word"
    if isinstance(value, dict | list) and not value:
        return f"an empty {_KINDS[type(value)].split()[1]}"
    kind = _KINDS.get(type(value), f"a {type(value).__name__}")
    return kind if isinstance(value, dict | list) else f"{kind} ({_shown(value)})"


def _quotes(value: Any) -> str:
    return "" if isinstance(value, str | dict | list) or value is None else "; put it in quotes"


def _shown(value: Any) -> str:
    return _cut(value if isinstance(value, str) and value.isprintable() else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
