"""Views on a pack: samples chosen by domain, class and split, or by their place in their class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
        inverted: 0 is selected.
    """

    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    leading: Leading | None = None
    masks: Mapping[str, str] | None = None
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
        return rows if self.leading is None and self.masks is None else self._part(pack, rows)

    def _part(self, pack: Pack, rows: np.ndarray) -> np.ndarray:
        """Those of ``rows`` that ``leading`` or ``masks`` choose by place in (domain, class)."""
        if pack.manifest.rejects:
            raise PackError(
                f"the protocol counts the images of a class, but {pack.path} lacks "
                f"{pack.manifest.rejects} of them, see rejects.jsonl; mend the tree and pack again"
            )
        index = pack.index
        group = index.domain[rows].astype(np.int64) * len(pack.manifest.classes) + index.label[rows]
        parts = []
        for number in np.unique(group):
            members = rows[group == number]
            name = pack.manifest.classes[int(number) % len(pack.manifest.classes)]
            parts.append(members[self._mask(name, len(members))])
        return np.sort(np.concatenate(parts)) if parts else rows

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
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)).astype(bool)
        return ~bits if self.inverted else bits


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
