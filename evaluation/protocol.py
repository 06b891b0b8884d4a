"""Evaluation protocols: which samples of a pack are references and which are tests."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.pack import Pack
from pipelines.selection import Leading, Selection, indices_of
from runtime.errors import PackError


@dataclass(frozen=True)
class Target:
    """One test set of a protocol with the references that it is compared with."""

    name: str
    reference: tuple[Selection, ...]
    test: tuple[Selection, ...]


@dataclass(frozen=True)
class ProtocolRows:
    """A target's samples in one pack.

    Attributes:
        reference: int64 (R,), rows of the index, ascending.
        reference_class: int64 (R,), the known class of each, 0 .. K-1.
        test: int64 (T,), rows of the index, ascending.
        test_class: int64 (T,), the known class of each, or -1 where it is unknown.
    """

    reference: np.ndarray
    reference_class: np.ndarray
    test: np.ndarray
    test_class: np.ndarray


@dataclass(frozen=True)
class Protocol:
    """A benchmark: its known classes, in label order, and its targets."""

    name: str
    dataset: str
    known: tuple[str, ...]
    targets: tuple[Target, ...]

    @staticmethod
    def load(path: str | Path) -> "Protocol":
        """Read a protocol's YAML file.

        Raises:
            PackError: the file cannot be read, or has missing or unknown keys.
        """
        try:
            text = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise PackError(f"cannot read protocol {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise PackError(
                f"protocol {path} is not YAML: {' '.join(str(error).split())}"
            ) from error
        _expect_keys(text, ("name", "dataset", "known", "targets"), str(path))
        targets = []
        for name, sets in text["targets"].items():
            _expect_keys(sets, ("reference", "test"), f"{path}: target {name}")
            targets.append(
                Target(
                    name,
                    _selections(sets["reference"], f"{path}: reference of {name}", True),
                    _selections(sets["test"], f"{path}: test of {name}"),
                )
            )
        return Protocol(text["name"], text["dataset"], tuple(text["known"]), tuple(targets))

    def target(self, name: str) -> Target:
        """The target called ``name``; PackError lists the targets when there is none."""
        for target in self.targets:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.targets)
        raise PackError(f"protocol {self.name} has no target {name}; it has: {names}")

    def rows(self, pack: Pack, target: Target) -> ProtocolRows:
        """The target's samples in ``pack``.

        Raises:
            PackError: the pack lacks a named class, domain or split, or the reference or test set
                is empty, or a known class has no reference.
        """
        known = indices_of(self.known, pack.manifest.classes, "class")
        known_of_label = np.full(len(pack.manifest.classes), -1, dtype=np.int64)
        known_of_label[known] = np.arange(len(known))
        reference = _union(pack, target.reference)
        test = _union(pack, target.test)
        reference_class = known_of_label[pack.index.label[reference]]
        counts = np.bincount(reference_class[reference_class >= 0], minlength=len(known))
        where = f"protocol {self.name}, target {target.name}, pack {pack.path}"
        if not target.reference:
            raise PackError(f"{where}: the protocol names no references; add yours to its YAML")
        if not len(test):
            raise PackError(f"{where}: the test set is empty")
        if (reference_class < 0).any():
            raise PackError(f"{where}: the reference set holds a class that is not known")
        if not counts.all():
            raise PackError(
                f"{where}: no reference image of class {self.known[int(counts.argmin())]}"
            )
        return ProtocolRows(
            reference, reference_class, test, known_of_label[pack.index.label[test]]
        )


def _union(pack: Pack, selections: Sequence[Selection]) -> np.ndarray:
    rows = [selection.rows(pack) for selection in selections]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *rows]))


def _selections(entries: Any, where: str, may_be_empty: bool = False) -> tuple[Selection, ...]:
    if not isinstance(entries, list) or (not entries and not may_be_empty):
        raise PackError(f"{where}: expected a list of selections")
    names = [field.name for field in fields(Selection)]
    selections = []
    for entry in entries:
        if not isinstance(entry, dict) or (unknown := set(entry) - set(names)):
            extra = f"unknown {sorted(unknown)}, " if isinstance(entry, dict) else ""
            raise PackError(f"{where}: {extra}a selection has the keys {', '.join(names)}")
        entry = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        if "leading" in entry:
            _expect_keys(entry["leading"], ("fraction", "order"), f"{where}: leading")
            entry["leading"] = Leading(
                entry["leading"]["fraction"], tuple(entry["leading"]["order"])
            )
        selections.append(Selection(**entry))
    return tuple(selections)


def _expect_keys(mapping: Any, expected: Sequence[str], where: str) -> None:
    if not isinstance(mapping, dict) or set(mapping) != set(expected):
        found = ", ".join(mapping) if isinstance(mapping, dict) else type(mapping).__name__
        raise PackError(f"{where}: expected the keys {', '.join(expected)}, found {found}")
