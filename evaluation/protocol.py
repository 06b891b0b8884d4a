"""Evaluation protocols: which samples of a pack are references and which are tests."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.layouts import LAYOUTS
from evaluation.listed_rows import LabeledRows, find_rows
from evaluation.lists import PATHS, ImageList, Layout
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
    """A test set of a protocol and the references that it is compared with.

    Attributes:
        name: shown in tables and reports.
        reference, test: the sets; each is the union of its parts.
        setting: what this target repeats, e.g. with other known classes; results are averaged over
            the targets of a setting. None if it repeats nothing.
    """

    name: str
    reference: tuple[Selection | ImageList, ...]
    test: tuple[Selection | ImageList, ...]
    setting: str | None = None


@dataclass(frozen=True)
class ProtocolRows:
    """A target's samples in one pack.

    Attributes:
        reference: int64 (R,), rows of the index, ascending.
        reference_class: int64 (R,), the known class of each, 0 .. K-1.
        test: int64 (T,), rows of the index, ascending; a list may have a row under two labels.
        test_class: int64 (T,), the known class of each, or -1 where it is unknown.
        test_name: object (T,), the class that each shows, by the list or else by the pack.
        known: names of the K known classes.
        left_out: listed images that were rejected when the pack was made.
    """

    reference: np.ndarray
    reference_class: np.ndarray
    test: np.ndarray
    test_class: np.ndarray
    test_name: np.ndarray
    known: tuple[str, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Protocol:
    """A benchmark.

    Attributes:
        name: shown in tables and reports.
        dataset: of its pack.
        known: names of the known classes, in label order; or how many there are, where all sets are
            lists, whose labels say which.
        targets: what is evaluated.
        leave_out_rejected: evaluate without the listed images that were rejected when the pack was
            made, in place of refusing the pack.
    """

    name: str
    dataset: str
    known: tuple[str, ...] | int
    targets: tuple[Target, ...]
    leave_out_rejected: bool = False

    @staticmethod
    def load(path: str | Path, lists: Path | None = None) -> "Protocol":
        """Read a protocol's YAML file, whose format docs/protocols.md describes.

        Args:
            path: of the file.
            lists: the folder in which lists are looked for; None for that of the file.

        Raises:
            ConfigError: the file cannot be read or does not have that format.
        """
        content = Fields.read(Path(path))
        content.expect(("name", "dataset", "known", "targets"), ("leave_out_rejected",))
        dataset, targets = content.word("dataset"), content.mapping("targets")
        parser = _Parser(
            Path(path).parent if lists is None else lists,
            LAYOUTS.get(dataset, PATHS),
            known_by_name=not isinstance(content.values["known"], int),
        )
        return Protocol(
            content.word("name"),
            dataset,
            content.words("known")
            if parser.known_by_name
            else content.number("known", int, 1, 10**6),
            tuple(parser.target(name, targets.mapping(name)) for name in targets.values),
            "leave_out_rejected" in content.values and content.switch("leave_out_rejected"),
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
            ConfigError: a list cannot be read.
            PackError: the pack lacks a named class, domain or split, or a listed image, or the
                reference or test set is empty, or a known class has no reference, or an image is
                in both sets.
        """
        num_known = self.known if isinstance(self.known, int) else len(self.known)
        reference, test = self._images(pack, target.reference), self._images(pack, target.test)
        unknown = reference.labels >= num_known
        counts = np.bincount(reference.labels[~unknown], minlength=num_known)
        where = f"protocol {self.name}, target {target.name}, pack {pack.path}"
        if not target.reference:
            raise PackError(f"{where}: the protocol names no references; add yours to its YAML")
        if not len(test.rows):
            raise PackError(f"{where}: the test set is empty")
        if unknown.any():
            raise PackError(f"{where}: the reference set holds a class that is not known")
        if not counts.all():
            number = int(counts.argmin())
            name = f"with label {number}" if isinstance(self.known, int) else self.known[number]
            raise PackError(f"{where}: no reference image of class {name}")
        if len(both := np.intersect1d(reference.rows, test.rows)):
            (key,), (source,) = pack.keys(both[:1]), pack.sources(both[:1])
            raise PackError(
                f"{where}: {len(both)} image(s) are both reference and test, the first is {key} "
                f"({source}); select different images, for instance with fraction and inverted"
            )
        return ProtocolRows(
            reference.rows,
            reference.labels,
            test.rows,
            np.where(test.labels < num_known, test.labels, -1),
            test.names,
            _names(reference, num_known) if isinstance(self.known, int) else self.known,
            reference.left_out + test.left_out,
        )

    def _images(self, pack: Pack, parts: Sequence[Selection | ImageList]) -> LabeledRows:
        """The union of ``parts`` by row; an image is there as often as it has different labels."""
        nothing = np.empty(0, dtype=np.int64)
        found = [LabeledRows(nothing, nothing, nothing.astype(object), 0)]
        for part in parts:
            if isinstance(part, Selection):
                found.append(self._selected(pack, part.rows(pack)))
            else:
                found.append(find_rows(part, pack, self.leave_out_rejected))
        rows, labels, names = (
            np.concatenate([getattr(part, column) for part in found])
            for column in ("rows", "labels", "names")
        )
        _, first = np.unique(np.stack([rows, labels]), axis=1, return_index=True)
        left_out = sum(part.left_out for part in found)
        return LabeledRows(rows[first], labels[first], names[first], left_out)

    def _selected(self, pack: Pack, rows: np.ndarray) -> LabeledRows:
        """``rows`` with the number of their class among the known ones, or how many these are."""
        assert not isinstance(self.known, int)
        classes = pack.manifest.classes
        known_of_label = np.full(len(classes), len(self.known), dtype=np.int64)
        known_of_label[indices_of(self.known, classes, "class")] = np.arange(len(self.known))
        label = pack.index.label[rows]
        return LabeledRows(rows, known_of_label[label], np.array(classes, dtype=object)[label], 0)


def _names(reference: LabeledRows, num_known: int) -> tuple[str, ...]:
    """A name for each known label: its images' classes, with the label where that is not unique."""
    names = [
        " + ".join(sorted(set(reference.names[reference.labels == label])))
        for label in range(num_known)
    ]
    different = len(set(names)) == num_known
    return tuple(n if different else f"{label} {n}" for label, n in enumerate(names))


@dataclass(frozen=True)
class _Parser:
    """Makes targets of their descriptions.

    Attributes:
        folder: of lists with relative paths.
        layout: of JSON lists.
        known_by_name: whether the known classes have names, without which nothing is selected.
    """

    folder: Path
    layout: Layout
    known_by_name: bool

    def target(self, name: str, sets: Fields) -> Target:
        sets.expect(("reference", "test"), ("setting",))
        # A published protocol may lack its references; whoever evaluates it adds them.
        no_references = sets.values["reference"] == []
        return Target(
            name,
            () if no_references else tuple(map(self._part, sets.mappings("reference"))),
            tuple(map(self._part, sets.mappings("test"))),
            sets.word("setting") if "setting" in sets.values else None,
        )

    def _part(self, entry: Fields) -> Selection | ImageList:
        if "list" in entry.values:
            entry.expect(("list",), ("root",))
            root = entry.word("root").rstrip("/") if "root" in entry.values else ""
            return ImageList(self.folder / entry.word("list"), root, self.layout)
        if not self.known_by_name:
            entry.fail("known is a number, so this must be a list; or name the known classes")
        return _selection(entry)


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
