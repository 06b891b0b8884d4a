"""What an alteration is, and what the commands that meet it may do."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

GOOD, FOUND, REFUSED = 0, 1, 2


@dataclass(frozen=True)
class Expectation:
    """How commands may end, by name, ``otherwise`` for those not named.

    Attributes:
        results: whether what succeeds nevertheless gives what it gives without the alteration.
    """

    otherwise: frozenset[int]
    statuses: Mapping[str, frozenset[int]] = field(default_factory=dict)
    results: bool = True

    def of(self, command: str) -> frozenset[int]:
        return self.statuses.get(command, self.otherwise)


def expect(
    otherwise: Iterable[int], results: bool = True, **statuses: Iterable[int]
) -> Expectation:
    """The names of commands are written with ``_`` for ``-``."""
    named = {name.replace("_", "-"): frozenset(given) for name, given in statuses.items()}
    return Expectation(frozenset(otherwise), named, results)


@dataclass(frozen=True)
class Alteration:
    """``apply`` alters what lies at a path."""

    name: str
    expectation: Expectation
    apply: Callable[[Path], None]


class Registry(list[Alteration]):
    """The alterations of a kind of file, in the order of their definition."""

    def add(self, name: str, expectation: Expectation, apply: Callable[[Path], None]) -> None:
        assert name not in {known.name for known in self}, name
        self.append(Alteration(name, expectation, apply))

    def __call__(self, expectation: Expectation) -> Callable:
        """Decorates a function whose name says what it alters."""

        def register(apply: Callable[[Path], None]) -> Callable[[Path], None]:
            self.add(apply.__name__.strip("_").replace("_", "-"), expectation, apply)
            return apply

        return register


def thinned(values: Iterable, one_of: int) -> list:
    """The parameters of a test: every ``one_of``-th in the fast suite, the others marked slow."""
    return [
        pytest.param(
            value,
            id=value.name if isinstance(value, Alteration) else None,
            marks=() if number % one_of == 0 else pytest.mark.slow,
        )
        for number, value in enumerate(values)
    ]


def snapshot(folder: Path) -> dict[str, tuple]:
    """Names, types, sizes, times and link targets of all that is in ``folder``."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            state = os.lstat(path)
            target = os.readlink(path) if os.path.islink(path) else ""
            size = state.st_size if not os.path.isdir(path) else 0
            found[path] = (state.st_mode, size, state.st_mtime_ns, target)
    return found
