"""Evaluation protocols: which samples of a pack are references and which are tests."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.yaml_fields import Fields
from pipelines.pack import Pack
from pipelines.selection import Leading, Selection, indices_of
from runtime.errors import ConfigError, PackError

_NAMES = ("domains", "classes", "splits")
_PARTS = ("leading", "masks", "fraction")
_KEYS = (*_NAMES, *_PARTS, "seed", "inverted")
_HEX_BYTES = re.compile(r"([0-9a-f]{2})+", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A test set of a protocol and the references that it is compared with."""

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
        """Read a protocol's YAML file, whose format docs/protocols.md describes.

        Raises:
            ConfigError: the file cannot be read or does not have that format.
        """
        content = Fields.read(Path(path))
        content.expect(("name", "dataset", "known", "targets"))
        targets = content.mapping("targets")
        return Protocol(
            content.word("name"),
            content.word("dataset"),
            content.words("known"),
            tuple(_target(name, targets.mapping(name)) for name in targets.values),
        )

    def target(self, name: str) -> Target:
        """The target called ``name``; ConfigError lists the targets when there is none."""
        for target in self.targets:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.targets)
        raise ConfigError(f"protocol {self.name} has no target {name}; it has: {names}")

    def rows(self, pack: Pack, target: Target) -> ProtocolRows:
        """The target's samples in ``pack``.

        Raises:
            PackError: the pack lacks a named class, domain or split, or the reference or test set
                is empty, or a known class has no reference, or an image is in both sets.
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
        if len(both := np.intersect1d(reference, test)):
            (key,), (source,) = pack.keys(both[:1]), pack.sources(both[:1])
            raise PackError(
                f"{where}: {len(both)} image(s) are both reference and test, the first is {key} "
                f"({source}); select different images, for instance with fraction and inverted"
            )
        return ProtocolRows(
            reference, reference_class, test, known_of_label[pack.index.label[test]]
        )


def _union(pack: Pack, selections: Sequence[Selection]) -> np.ndarray:
    rows = [selection.rows(pack) for selection in selections]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *rows]))


def _target(name: str, sets: Fields) -> Target:
    sets.expect(("reference", "test"))
    # A published protocol may lack its references; whoever evaluates it adds them.
    no_references = sets.values["reference"] == []
    return Target(
        name,
        () if no_references else tuple(_selection(part) for part in sets.mappings("reference")),
        tuple(_selection(part) for part in sets.mappings("test")),
    )


def _selection(entry: Fields) -> Selection:
    entry.expect((), _KEYS)
    parts = [key for key in _PARTS if key in entry.values]
    if len(parts) > 1:
        entry.fail(f"{parts[0]} and {parts[1]} exclude each other")
    if "inverted" in entry.values and not parts:
        entry.fail(f"inverted needs one of {', '.join(_PARTS)}")
    if "seed" in entry.values and "fraction" not in entry.values:
        entry.fail("seed needs fraction")
    has = entry.values.__contains__
    names = {key: entry.words(key) if has(key) else None for key in _NAMES}
    masks = _masks(entry.mapping("masks")) if has("masks") else None
    if masks and names["classes"] and (absent := set(names["classes"]) - set(masks)):
        entry.fail(f"masks lacks the class {min(absent)}")
    return Selection(
        **names,
        leading=_leading(entry.mapping("leading")) if has("leading") else None,
        masks=masks,
        fraction=_fraction(entry) if has("fraction") else None,
        seed=entry.number("seed", int, 0, 2**63 - 1) if has("seed") else 0,
        inverted=entry.switch("inverted") if has("inverted") else False,
    )


def _fraction(entry: Fields) -> float:
    fraction = float(entry.number("fraction", float, 0, 1))
    if fraction in (0, 1):
        entry.fail("fraction must be between 0 and 1; leave it out to select all")
    return fraction


def _leading(entry: Fields) -> Leading:
    entry.expect(("fraction", "order"))
    order = entry.items("order")
    if any(type(number) is not int for number in order) or set(order) != set(
        range(1, len(order) + 1)
    ):
        entry.fail(f"order must hold each of the numbers 1 to {len(order)} once")
    return Leading(entry.number("fraction", float, 0, 1), tuple(order))


def _masks(entry: Fields) -> dict[str, str]:
    for class_ in entry.values:
        if not _HEX_BYTES.fullmatch(entry.word(class_)):
            entry.fail(f"the mask of {class_} must be an even number of hexadecimal digits")
    return entry.values
