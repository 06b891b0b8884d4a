"""Ranges of the numbers in a configuration; imports nothing slow."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold: finite, and from ``low`` to ``high``.

    Attributes:
        whole: integers only.
        open: ``low`` itself is excluded.
    """

    low: float
    high: float
    whole: bool = False
    open: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high and not (self.open and value == self.low)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a finite number"
        unbounded = self.high in (_MAX_INT, _MAX_FLOAT)
        if self.open:
            return f"{kind} above {self.low}" + ("" if unbounded else f" and up to {self.high}")
        if unbounded:
            return f"{kind} from {self.low} up"
        return f"{kind} from {self.low} to {self.high}"


_MAX_INT, _MAX_FLOAT = 2**63 - 1, sys.float_info.max


def whole(low: int, high: int = _MAX_INT) -> Range:
    """Integers from ``low`` to ``high``."""
    return Range(low, high, whole=True)


def number(low: float, high: float = _MAX_FLOAT) -> Range:
    """Finite numbers from ``low`` to ``high``."""
    return Range(low, high)


def above(low: float, high: float = _MAX_FLOAT) -> Range:
    """Finite numbers greater than ``low``, up to ``high``."""
    return Range(low, high, open=True)


def check_numbers(group: str, config: object, **ranges: Range) -> None:
    """Check fields of a dataclass against their ranges; a tuple by its elements, None passes.

    Args:
        group: the dataclass's key in the configuration, such as ``train``; empty at the top.
        config: the dataclass.
        ranges: the range of each field, by the field's name.

    Raises:
        ValueError: a value is outside its range; the message names the key and the range.
    """
    for name, allowed in ranges.items():
        value = getattr(config, name)
        elements = value if isinstance(value, tuple) else () if value is None else (value,)
        for element in elements:
            if element not in allowed:
                key = f"{group}.{name}" if group else name
                raise ValueError(f"{key} must be {allowed}, not {element}")
