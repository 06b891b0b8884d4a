"""The rows of a pack that hold the images of a list, matched by their source paths."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from evaluation.lists import Entry, ImageList
from pipelines.pack import Pack
from runtime.errors import PackError
from sharding.format.files import MalformedError
from sharding.format.rejects import read_rejects

_ZEROS = re.compile(r"(?<!\d)0+(?=\d+\.\w+$)")  # in front of the number that ends a file's name
_ABSENT, _AMBIGUOUS = -1, -2


class LabeledRows(NamedTuple):
    """Images of a pack with labels that are not the pack's own, N of them.

    Attributes:
        rows: int64 (N,), rows of the index.
        labels: int64 (N,), from 0; those of known classes are below their number.
        names: object (N,), the class of each: the list's, or else the pack's.
        left_out: how many more were listed and rejected when the pack was made.
    """

    rows: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    left_out: int


def find_rows(listed: ImageList, pack: Pack, leave_out_rejected: bool) -> LabeledRows:
    """The ``listed`` images, in the list's order.

    A listed path means the source path that is equal, or else the only one that is equal but for
    underscores in place of blanks and, where the list has image numbers, zeros in front of them.

    Raises:
        ConfigError: see ``ImageList.read``.
        PackError: the pack lacks a listed image, or it was rejected and ``leave_out_rejected`` is
            not set, or two source paths match a listed one.
    """
    entries = listed.read()
    finder = _finder(pack, listed.numbered)
    rows = np.array([finder.row(entry.path) for entry in entries], dtype=np.int64)
    where = f"pack {pack.path}, list {listed.path}"
    if (rows == _AMBIGUOUS).any():
        entry = entries[int((rows == _AMBIGUOUS).argmax())]
        raise PackError(f"{where}: two images could be {entry.path} ({entry.place}); rename one")
    absent = [entries[position] for position in np.flatnonzero(rows == _ABSENT)]
    if absent:
        rejected = _rejected(pack, finder)
        lacking = [entry for entry in absent if finder.form(entry.path) not in rejected]
        if lacking:
            raise PackError(f"{where}: {_lacks(lacking, len(entries), finder)}")
        if not leave_out_rejected:
            reason = rejected[finder.form(absent[0].path)]
            raise PackError(
                f"{where}: {len(absent)} listed images were rejected when the tree was packed, the "
                f"first is {absent[0].path} ({absent[0].place}): {reason}; replace them and pack "
                "again, or leave them out with --leave-out-rejected"
            )
    kept = [entry for entry, row in zip(entries, rows, strict=True) if row != _ABSENT]
    rows = rows[rows != _ABSENT]
    classes = np.array(pack.manifest.classes, dtype=object)[pack.index.label[rows]]
    names = [entry.name or name for entry, name in zip(kept, classes, strict=True)]
    labels = np.array([entry.label for entry in kept], dtype=np.int64)
    return LabeledRows(rows, labels, np.array(names, dtype=object), len(absent))


def expect_order(images: LabeledRows, listed: ImageList, known: Sequence[str]) -> None:
    """Raise PackError if ``images``, those of the list, have a class of one of the ``known`` names
    with the label of another."""
    label_of = {name: label for label, name in enumerate(known)}
    for name, label in sorted(set(zip(images.names, images.labels.tolist(), strict=True))):
        if label_of.get(name, label) != label:
            raise PackError(
                f"list {listed.path}: class {name} has label {label}, but {label_of[name]} by its "
                "place in `known`; name the known classes in the order of the list's labels"
            )


class _Finder:
    """Finds rows of a pack by source path.

    Args:
        pack: where they are found.
        form: gives equal results for source paths that mean the same image.
    """

    def __init__(self, pack: Pack, form: Callable[[str], str]) -> None:
        self.form = form
        self._exact = {
            source: row for row, source in enumerate(pack.sources(np.arange(len(pack.index))))
        }
        self._similar: dict[str, int] = {}
        for source, row in self._exact.items():
            similar = form(source)
            self._similar[similar] = _AMBIGUOUS if similar in self._similar else row

    def row(self, path: str) -> int:
        """The row of ``path``, or ``_ABSENT`` or ``_AMBIGUOUS``."""
        exact = self._exact.get(path)
        return self._similar.get(self.form(path), _ABSENT) if exact is None else exact


@lru_cache(maxsize=2)
def _finder(pack: Pack, numbered: bool) -> _Finder:
    return _Finder(pack, _without_zeros if numbered else _with_underscores)


def _with_underscores(path: str) -> str:
    return path.replace(" ", "_")


def _without_zeros(path: str) -> str:
    return _ZEROS.sub("", _with_underscores(path))


def _rejected(pack: Pack, finder: _Finder) -> dict[str, str]:
    """The reason of each image that was rejected, by its path in the finder's form."""
    try:
        rejects = read_rejects(pack.path, pack.manifest) if pack.manifest.rejects else ()
        return {finder.form(reject.source): reject.reason for reject in rejects}
    except MalformedError as error:
        raise PackError(f"pack {pack.path}: {error}; pack the tree again") from error


def _lacks(lacking: list[Entry], listed: int, finder: _Finder) -> str:
    """What is said of the images that are not there."""
    first = lacking[0]
    folders = first.path.split("/")
    remedy = "pack the tree that the list is made for"
    for depth in range(1, len(folders)):
        if finder.row("/".join(folders[depth:])) >= 0:
            remedy = (
                f"if its paths start above the packed tree, add `root: {'/'.join(folders[:depth])}`"
            )
    return (
        f"{len(lacking)} of {listed} listed images are not in the pack, the first is {first.path} "
        f"({first.place}); {remedy}"
    )
