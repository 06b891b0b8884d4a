"""Evaluation protocols: which samples of a pack are references and which are tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from evaluation.groups import Group, group_tests, read_groups
from evaluation.layouts import LAYOUTS
from evaluation.listed_rows import LabeledRows, expect_order, find_rows
from evaluation.lists import PATHS, ImageList
from evaluation.selection_fields import read_selection
from evaluation.yaml_fields import Fields
from pipelines.pack import Pack
from pipelines.selection import Selection, errors_naming, indices_of
from runtime.errors import ConfigError, PackError


class Part(NamedTuple):
    """Images of a reference or test set: of the protocol's own data set, or of ``dataset``."""

    images: Selection | ImageList
    dataset: str | None = None


@dataclass(frozen=True)
class Target:
    """A test set of a protocol and the references that it is compared with.

    Attributes:
        name: shown in tables and reports.
        reference, test: the sets; each is the union of its parts.
        setting: what this target repeats, e.g. with other known classes; results are averaged over
            the targets of a setting. None if it repeats nothing.
        groups: unknown classes whose metrics are reported separately, too.
    """

    name: str
    reference: tuple[Part, ...]
    test: tuple[Part, ...]
    setting: str | None = None
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True)
class ProtocolRows:
    """A target's samples in a pack.

    Attributes:
        reference: int64 (R,), rows of the index, ascending.
        reference_class: int64 (R,), the known class of each, 0 .. K-1.
        test: int64 (T,), rows of the index, ascending; a list may have a row under two labels.
        test_class: int64 (T,), the known class of each, or -1 where it is unknown.
        test_name: object (T,), the class that each shows, by the list or else by the pack.
        known: names of the K known classes.
        left_out: listed images that were rejected when the pack was made.
        groups: bool (T,), the tests of each group of unknown classes, by its name.
    """

    reference: np.ndarray
    reference_class: np.ndarray
    test: np.ndarray
    test_class: np.ndarray
    test_name: np.ndarray
    known: tuple[str, ...]
    left_out: int = 0
    groups: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A benchmark.

    Attributes:
        name: shown in tables and reports.
        dataset: of its pack, which has all known classes.
        known: names of the known classes, in label order, or ``all`` classes of the pack; or how
            many there are, where all sets are lists, whose labels say which.
        targets: what is evaluated.
        leave_out_rejected: evaluate without the listed images that were rejected when the pack was
            made, in place of refusing the pack.
    """

    name: str
    dataset: str
    known: tuple[str, ...] | Literal["all"] | int
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
        known = _known(content)
        parser = _Parser(
            Path(path).parent if lists is None else lists,
            dataset,
            known_by_name=not isinstance(known, int),
        )
        return Protocol(
            content.word("name"),
            dataset,
            known,
            tuple(parser.target(name, targets.mapping(name)) for name in targets.values),
            "leave_out_rejected" in content.values and content.switch("leave_out_rejected"),
        )

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets whose packs are needed: its own, and those of parts of its targets."""
        parts = [part for target in self.targets for part in (*target.reference, *target.test)]
        named = [part.dataset for part in parts if part.dataset is not None]
        return tuple(dict.fromkeys([self.dataset, *named]))

    def choose(self, packs: Sequence[Pack]) -> list[Pack]:
        """Those of the ``packs`` that hold its data sets; if it needs only one, a single pack is
        taken whatever it holds.

        Raises:
            ConfigError: for a data set there is no pack, or several.
        """
        if len(packs) == 1 == len(self.datasets):
            return list(packs)
        chosen = []
        for dataset in self.datasets:
            fitting = [pack for pack in packs if pack.manifest.dataset == dataset]
            if len(fitting) != 1:
                have = ", ".join(f"{pack.path} ({pack.manifest.dataset})" for pack in packs)
                raise ConfigError(
                    f"protocol {self.name} needs exactly one pack of {dataset}, {len(fitting)} of "
                    f"the given packs match: {have}; give one pack per data set"
                )
            chosen += fitting
        return chosen

    def target(self, name: str) -> Target:
        """The target called ``name``; ConfigError lists the targets when there is none."""
        for target in self.targets:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.targets)
        raise ConfigError(f"protocol {self.name} has no target {name}; it has: {names}")

    def rows(self, pack: Pack, target: Target) -> ProtocolRows:
        """The target's samples in ``pack``, which may be several joined ones.

        Raises:
            ConfigError: a list cannot be read, or a data set has no pack.
            PackError: the pack lacks a named class, domain or split, or a listed image, or the
                reference or test set is empty, or a known class has no reference, or an image is
                in both sets, or a group has a class that is known or not tested.
        """
        images = _Images(self, pack)
        num_known = self.known if isinstance(self.known, int) else len(images.known)
        reference, test = images.of(target.reference), images.of(target.test)
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
            name = f"with label {number}" if isinstance(self.known, int) else images.known[number]
            raise PackError(f"{where}: no reference image of class {name}")
        if len(both := np.intersect1d(reference.rows, test.rows)):
            (key,), (source,) = pack.keys(both[:1]), pack.sources(both[:1])
            raise PackError(
                f"{where}: {len(both)} image(s) are both reference and test, the first is {key} "
                f"({source}); select different images, for instance with fraction and inverted"
            )
        known = _names(reference, num_known) if isinstance(self.known, int) else images.known
        return ProtocolRows(
            reference.rows,
            reference.labels,
            test.rows,
            np.where(test.labels < num_known, test.labels, -1),
            test.names,
            known,
            reference.left_out + test.left_out,
            group_tests(target.groups, test, known, where),
        )


class _Images:
    """The images of a protocol's parts in the packs of its data sets, numbered by ``pack``'s rows.

    Attributes:
        known: names of the known classes; empty where labels alone say which are known.
    """

    def __init__(self, protocol: Protocol, pack: Pack) -> None:
        first_rows = dict(zip(pack.members, pack.first_rows, strict=True))
        chosen = zip(protocol.datasets, protocol.choose(pack.members), strict=True)
        self._packs = {dataset: (member, first_rows[member]) for dataset, member in chosen}
        self._protocol = protocol
        own, _ = self._packs[protocol.dataset]
        self.known: tuple[str, ...] = ()
        if protocol.known == "all":
            self.known = own.manifest.classes
        elif not isinstance(protocol.known, int):
            with errors_naming(own):
                indices_of(protocol.known, own.manifest.classes, "class")
            self.known = protocol.known

    def of(self, parts: Sequence[Part]) -> LabeledRows:
        """The union of ``parts`` by row; an image is there as often as it has different labels."""
        nothing = np.empty(0, dtype=np.int64)
        found = [LabeledRows(nothing, nothing, nothing.astype(object), 0)]
        for part in parts:
            pack, first_row = self._packs[part.dataset or self._protocol.dataset]
            if isinstance(part.images, Selection):
                images = self._selected(pack, part.images.rows(pack))
            else:
                images = find_rows(part.images, pack, self._protocol.leave_out_rejected)
                expect_order(images, part.images, self.known)
            found.append(images._replace(rows=first_row + images.rows))
        rows, labels, names = (
            np.concatenate([getattr(images, column) for images in found])
            for column in ("rows", "labels", "names")
        )
        _, first = np.unique(np.stack([rows, labels]), axis=1, return_index=True)
        left_out = sum(images.left_out for images in found)
        return LabeledRows(rows[first], labels[first], names[first], left_out)

    def _selected(self, pack: Pack, rows: np.ndarray) -> LabeledRows:
        """``rows`` with the number of their class among the known ones, or how many these are."""
        number = {name: number for number, name in enumerate(self.known)}
        classes = pack.manifest.classes
        known_of_label = np.array([number.get(name, len(number)) for name in classes])
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
        dataset: the protocol's own.
        known_by_name: whether the known classes have names, without which nothing is selected.
    """

    folder: Path
    dataset: str
    known_by_name: bool

    def target(self, name: str, sets: Fields) -> Target:
        sets.expect(("reference", "test"), ("setting", "groups"))
        # A published protocol may lack its references; whoever evaluates it adds them.
        no_references = sets.values["reference"] == []
        return Target(
            name,
            () if no_references else tuple(map(self._part, sets.mappings("reference"))),
            tuple(map(self._part, sets.mappings("test"))),
            sets.word("setting") if "setting" in sets.values else None,
            read_groups(sets.mapping("groups")) if "groups" in sets.values else (),
        )

    def _part(self, entry: Fields) -> Part:
        dataset = entry.word("dataset") if "dataset" in entry.values else None
        if "list" in entry.values:
            entry.expect(("list",), ("root", "dataset"))
            root = entry.word("root").rstrip("/") if "root" in entry.values else ""
            layout = LAYOUTS.get(dataset or self.dataset, PATHS)
            return Part(ImageList(self.folder / entry.word("list"), root, layout), dataset)
        if not self.known_by_name:
            entry.fail("known is a number, so this must be a list; or name the known classes")
        return Part(read_selection(entry), dataset)


def _known(content: Fields) -> tuple[str, ...] | Literal["all"] | int:
    if isinstance(content.values["known"], int):
        return content.number("known", int, 1, 10**6)
    return "all" if content.values["known"] == "all" else content.words("known")
