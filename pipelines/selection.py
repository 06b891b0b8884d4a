"""Selects samples of a pack by domain, class and split, or by their number within their class."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipelines.hashing import stream
from pipelines.pack import Pack
from runtime.errors import PackError


@dataclass(frozen=True)
class Leading:
    """A fixed random subset of the images of each (domain, class).

    The n images are numbered 1 .. n by name. Of those numbers, in the order in which they appear in
    ``order``, the first ``int(fraction * n)`` are selected.
    """

    fraction: float
    order: tuple[int, ...]

    def mask(self, count: int) -> np.ndarray:
        """bool (count,), which of ``count`` images are selected."""
        numbers = [number for number in self.order if number <= count]
        if len(numbers) != count:
            raise PackError(
                f"a class has {count} images, more than the {len(self.order)} of the protocol's "
                "order; was the pack made from the published tree?"
            )
        chosen = np.zeros(count, dtype=bool)
        chosen[np.array(numbers[: int(self.fraction * count)], dtype=np.int64) - 1] = True
        return chosen


@dataclass(frozen=True)
class Selection:
    """The samples that meet every criterion given; None accepts all.

    Attributes:
        domains, classes, splits: names.
        leading: a fixed random subset of each (domain, class).
        masks: a bit mask for each selected class, in hexadecimal: one bit per image of a (domain,
            class) sorted by name, most significant bit first; 1 is selected.
        fraction: select this fraction, between 0 and 1, of each (domain, class), rounded to whole
            images; of two images or more, at least one is selected and one left out. The images
            are chosen by a hash of seed and source path, whatever the pack's order.
        seed: of the hash for ``fraction``, 0 .. 2**63 - 1.
        inverted: select what ``leading``, ``masks`` or ``fraction`` would leave out.
    """

    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    leading: Leading | None = None
    masks: Mapping[str, str] | None = None
    fraction: float | None = None
    seed: int = 0
    inverted: bool = False

    def rows(self, pack: Pack) -> np.ndarray:
        """The selected rows of the pack's index, int64 ascending.

        Raises:
            PackError: the pack lacks a named domain, class or split, or a class does not
                have the number of images for which ``masks`` or ``leading`` were made.
        """
        with errors_naming(pack):
            return self._rows(pack)

    def _rows(self, pack: Pack) -> np.ndarray:
        manifest, index = pack.manifest, pack.index
        chosen = np.ones(len(index), dtype=bool)
        for wanted, known, column, what in (
            (self.domains, manifest.domains, index.domain, "domain"),
            # Masks select the classes as well, if these are not named.
            (
                self.masks if self.classes is None else self.classes,
                manifest.classes,
                index.label,
                "class",
            ),
            (self.splits, manifest.splits, index.split, "split"),
        ):
            if wanted is not None:
                indices = indices_of(tuple(wanted), known, what)
                chosen &= np.isin(column, indices.astype(column.dtype))
        rows = np.flatnonzero(chosen)
        if self.fraction is not None:
            return self._draw(pack, rows)
        return rows if self.leading is None and self.masks is None else self._part(pack, rows)

    def _draw(self, pack: Pack, rows: np.ndarray) -> np.ndarray:
        """The ``fraction`` of each (domain, class) among ``rows`` with the lowest hashes."""
        assert self.fraction is not None
        digests = b"".join(
            hashlib.blake2b(source.encode(errors="surrogateescape"), digest_size=8).digest()
            for source in pack.sources(rows)
        )
        order = stream(self.seed, np.frombuffer(digests, dtype="<u8"))
        drawn = np.zeros(len(rows), dtype=bool)
        for members in _groups(pack, rows):
            count = int(self.fraction * len(members) + 0.5)
            count = max(1, min(count, len(members) - 1))
            drawn[members[np.argsort(order[members], kind="stable")[:count]]] = True
        return rows[drawn != self.inverted]

    def _part(self, pack: Pack, rows: np.ndarray) -> np.ndarray:
        """Those of ``rows`` that ``leading`` or ``masks`` select within each (domain, class)."""
        if pack.manifest.rejects:
            raise PackError(
                "this protocol selects images by their number within a class, but "
                f"{pack.manifest.rejects} images were rejected, see rejects.jsonl; "
                "fix the tree and pack it again"
            )
        chosen = np.zeros(len(rows), dtype=bool)
        for members in _groups(pack, rows):
            name = pack.manifest.classes[int(pack.index.label[rows[members[0]]])]
            chosen[members] = self._mask(name, len(members)) != self.inverted
        return rows[chosen]

    def _mask(self, name: str, count: int) -> np.ndarray:
        if self.masks is None:
            assert self.leading is not None
            return self.leading.mask(count)
        digits = self.masks[name]
        if 4 * len(digits) != count:
            raise PackError(
                f"class {name} has {count} images, the protocol's mask covers {4 * len(digits)}; "
                "pack the published tree"
            )
        return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)).astype(bool)


@contextmanager
def errors_naming(pack: Pack) -> Iterator[None]:
    """Put the pack's path in front of the message of a PackError."""
    try:
        yield
    except PackError as error:
        raise PackError(f"{pack.path}: {error}") from error


def _groups(pack: Pack, rows: np.ndarray) -> list[np.ndarray]:
    """For each (domain, class), the indices of its members in ``rows``, ascending."""
    index = pack.index
    group = index.domain[rows].astype(np.int64) * len(pack.manifest.classes) + index.label[rows]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order])) + 1
    return [members for members in np.split(order, starts) if len(members)]


def indices_of(wanted: Sequence[str], known: Sequence[str], what: str) -> np.ndarray:
    """int64 (n,), the index of each of the n ``wanted`` names among the ``known``.

    Raises:
        PackError: a name is not known; ``what`` says what it names, e.g. "class".
    """
    index = {name: number for number, name in enumerate(known)}
    if missing := [name for name in wanted if name not in index]:
        shown = ", ".join(known[:10]) + (f", … ({len(known)} in all)" if len(known) > 10 else "")
        raise PackError(f"the pack has no {what} {', '.join(missing)}; it has: {shown}")
    return np.array([index[name] for name in wanted], dtype=np.int64)
