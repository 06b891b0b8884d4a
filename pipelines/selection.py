"""Views on a pack: samples chosen by domain, class and split, or by their place in their class."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.hashing import stream
from pipelines.pack import Pack
from runtime.errors import PackError


@dataclass(frozen=True)
class Leading:
    """Of n images of a domain and class, by name, the first ``int(fraction * n)`` of ``order``
    restricted to the numbers 1 .. n."""

    fraction: float
    order: tuple[int, ...]

    def mask(self, count: int) -> np.ndarray:
        """bool (count,), the chosen ones of ``count`` images."""
        numbers = [number for number in self.order if number <= count]
        if len(numbers) != count:
            raise PackError(
                f"a class has {count} images, more than the {len(self.order)} of the protocol's "
                "order; is the pack made of the published tree?"
            )
        chosen = np.zeros(count, dtype=bool)
        chosen[np.array(numbers[: int(self.fraction * count)], dtype=np.int64) - 1] = True
        return chosen


@dataclass(frozen=True)
class Selection:
    """The samples that meet all that is given; None stands for all.

    Attributes:
        domains, classes, splits: names.
        leading: a part of each (domain, class).
        masks: for each class that is selected a bit string in hexadecimal digits, a bit for each
            image of a (domain, class) by name, from the left; 1 is selected.
        fraction: of the images of each (domain, class), between 0 and 1, drawn by a hash of the
            seed and the image's source path: the nearest whole number of images, at least one on
            either side where there are two. It depends neither on the pack's order nor on NumPy.
        seed: of that draw, 0 .. 2**63 - 1.
        inverted: select what ``leading``, ``masks`` or ``fraction`` leave out.
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
            PackError: the pack lacks a named domain, class or split, or has another number of
                images in a class than ``masks`` or ``leading`` are made for.
        """
        manifest, index = pack.manifest, pack.index
        chosen = np.ones(len(index), dtype=bool)
        for wanted, known, column, what in (
            (self.domains, manifest.domains, index.domain, "domain"),
            (self.classes or self.masks, manifest.classes, index.label, "class"),
            (self.splits, manifest.splits, index.split, "split"),
        ):
            if wanted is not None:
                positions = indices_of(tuple(wanted), known, what)
                chosen &= np.isin(column, positions.astype(column.dtype))
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
        """Those of ``rows`` that ``leading`` or ``masks`` choose by place in (domain, class)."""
        if pack.manifest.rejects:
            raise PackError(
                "this protocol selects images by their position within a class, but "
                f"{pack.manifest.rejects} images of {pack.path} were rejected, see rejects.jsonl; "
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
                f"class {name} has {count} images, the protocol's mask is for {4 * len(digits)}; "
                "pack the published tree"
            )
        return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)).astype(bool)


def _groups(pack: Pack, rows: np.ndarray) -> list[np.ndarray]:
    """Positions in ``rows`` of each (domain, class), ascending within it."""
    index = pack.index
    group = index.domain[rows].astype(np.int64) * len(pack.manifest.classes) + index.label[rows]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order])) + 1
    return [members for members in np.split(order, starts) if len(members)]


def indices_of(wanted: Sequence[str], known: Sequence[str], what: str) -> np.ndarray:
    """int64 (n,), the index of each of the n ``wanted`` names among the ``known``.

    Raises:
        PackError: a name is not known; ``what`` says what it is a name of.
    """
    index = {name: number for number, name in enumerate(known)}
    if missing := [name for name in wanted if name not in index]:
        shown = ", ".join(known[:10]) + (f", … ({len(known)} in all)" if len(known) > 10 else "")
        raise PackError(f"the pack has no {what} {', '.join(missing)}; it has: {shown}")
    return np.array([index[name] for name in wanted], dtype=np.int64)
