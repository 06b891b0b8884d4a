"""Views on a pack: samples chosen by domain, class and split."""

from dataclasses import dataclass

import numpy as np

from pipelines.pack import Pack, names_to_positions


@dataclass(frozen=True)
class Selection:
    """The samples whose domain, class and split are among those named; None stands for all."""

    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None

    def rows(self, pack: Pack) -> np.ndarray:
        """The selected rows of the pack's index, int64 ascending.

        Raises:
            PackError: the pack lacks a named domain, class or split.
        """
        manifest, index = pack.manifest, pack.index
        chosen = np.ones(len(index), dtype=bool)
        for wanted, known, column, what in (
            (self.domains, manifest.domains, index.domain, "domain"),
            (self.classes, manifest.classes, index.label, "class"),
            (self.splits, manifest.splits, index.split, "split"),
        ):
            if wanted is not None:
                positions = names_to_positions(wanted, known, what)
                chosen &= np.isin(column, positions.astype(column.dtype))
        return np.flatnonzero(chosen)
