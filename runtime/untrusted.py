"""Text and YAML files that others may have written: bounded, with plain content.

Everything here raises OSError or ValueError; the caller says which file it was.
"""

from pathlib import Path
from typing import Any

import yaml

from runtime.files import open_regular

_MAX_TEXT = 1 << 19
_MAX_DEPTH = 16


def read_text(path: Path) -> str:
    """The text of a UTF-8 file of at most 512 KiB."""
    with open_regular(path, max_bytes=_MAX_TEXT) as file:
        return file.read(_MAX_TEXT).decode()


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's mapping of strings to mappings, lists, strings, numbers, booleans and nulls.

    Aliases are refused: a few lines of them can expand to more values than fit in memory.
    """
    try:
        values = yaml.load(read_text(path), _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("it does not hold a mapping")
    _check_plain(values, _MAX_DEPTH)
    return values


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has YAML aliases")
        return super().compose_node(parent, index)


def _check_plain(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"its key {key!r} is not a string")
            _check_plain(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, depth - 1)
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"it holds a value of type {type(value).__name__}")
