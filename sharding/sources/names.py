"""Names of classes, domains and splits that are found in a file: which may be, in which order."""

from collections.abc import Iterable

from runtime.errors import PackError
from sharding.format.manifest import MAX_NAMES
from sharding.format.strict_json import MAX_NAME, printable


def check_name(name: str, where: str) -> None:
    """Raise PackError, saying ``where``, unless ``name`` may stand in a manifest."""
    if not may_be_name(name):
        raise PackError(
            f"{where}: {name!a:.80} cannot be a name; use 1 to {MAX_NAME} characters, none of them "
            "a control character"
        )


def may_be_name(text: str) -> bool:
    """Whether ``text`` may be a name in a manifest."""
    return 0 < len(text) <= MAX_NAME and printable(text) == text


def in_order(names: Iterable[str], field: str, where: str) -> tuple[str, ...]:
    """The different ``names`` of a manifest's ``field``: by number where all are plain numbers,
    so that class 10 follows class 9, else by name.

    Raises:
        PackError: there are more than a pack can have.
    """
    different = set(names)
    if len(different) > MAX_NAMES[field]:
        raise PackError(
            f"{where}: {len(different):,} {field}, a pack has at most {MAX_NAMES[field]:,}; is the "
            "right column named?"
        )
    if all(is_number(name) for name in different):
        return tuple(sorted(different, key=int))
    return tuple(sorted(different))


def is_number(text: str) -> bool:
    """Whether ``text`` is a natural number of at most nine digits, as ``str`` writes it."""
    return text.isascii() and text.isdigit() and len(text) <= 9 and str(int(text)) == text
