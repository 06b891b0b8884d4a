"""Parses JSON from untrusted files and checks its values."""

import json
import re
from collections.abc import Set
from typing import Any, NoReturn

from sharding.format.files import MalformedError

_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and surrogates
MAX_NAME = 2000
_MAX_DIGITS = 18
_SHA256 = re.compile("[0-9a-f]{64}")

Scalar = str | int | float | bool | None
Settings = dict[str, Scalar | dict[str, Scalar]]


def parse(content: bytes) -> dict[str, Any]:
    """Parse ``content``: a JSON object in UTF-8, without repeated keys, NaN, infinities or integers
    of more than 18 digits.

    Raises:
        MalformedError: it is anything else.
    """
    try:
        parsed = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise MalformedError("it is not UTF-8") from error
    except RecursionError as error:
        raise MalformedError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise MalformedError(f"it is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise MalformedError("it is not a JSON object")
    return parsed


def exact_keys(value: Any, keys: Set[str], what: str) -> None:
    """Raise MalformedError unless ``value`` is an object with exactly these ``keys``."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is not an object")
    if missing := sorted(keys - value.keys()):
        raise MalformedError(f"{what} lacks {missing[0]}")
    if unknown := sorted(value.keys() - keys):
        raise MalformedError(f"{what} has an unknown key {unknown[0]!a:.100}")


def integer(value: Any, what: str, least: int, most: int) -> int:
    """``value`` if it is an integer from ``least`` to ``most``."""
    if type(value) is not int or not least <= value <= most:
        raise MalformedError(f"{what} is not an integer from {least} to {most}")
    return value


def sha256(value: Any, what: str) -> str:
    """``value`` if it is a sha256 in lowercase hexadecimal digits."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise MalformedError(f"{what} is not 64 hexadecimal digits")
    return value


def text(value: Any, what: str, most: int) -> str:
    """``value`` if it is a string of at most ``most`` characters, none of them a control one."""
    if not isinstance(value, str) or len(value) > most:
        raise MalformedError(f"{what} is not a text of at most {most} characters")
    if _UNPRINTABLE.search(value):
        raise MalformedError(f"{what} has control characters")
    return value


def names(value: Any, what: str, most: int) -> tuple[str, ...]:
    """``value`` if it is a list of 1 to ``most`` unique names without control characters."""
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise MalformedError(f"{what} is not a list of 1 to {most} names")
    for number, name in enumerate(value):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise MalformedError(f"name {number} of {what} is empty, too long or not a string")
        if _UNPRINTABLE.search(name):
            raise MalformedError(f"name {number} of {what} has control characters")
    if len(set(value)) < len(value):
        raise MalformedError(f"{what} has a name twice")
    return tuple(value)


def settings(value: Any, what: str) -> Settings:
    """``value`` if it is an object whose values are scalars or objects of scalars."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is not an object")
    inner = [item for entry in value.values() for item in _values(entry)]
    if any(isinstance(item, list | dict) for item in inner):
        raise MalformedError(f"{what} is nested too deeply or has a list")
    return value


def printable(name: str) -> str:
    """``name`` as ``names`` accepts it: control characters, and bytes of a file name that are not
    valid UTF-8, are escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _values(entry: Any) -> list[Any]:
    return list(entry.values()) if isinstance(entry, dict) else [entry]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedError("an object has a key twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise MalformedError("a number has too many digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not a number")
