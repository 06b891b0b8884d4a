"""Backbone features of rows of a pack."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Features of some rows of a pack.

    Attributes:
        rows: int64 (N,), ascending and distinct.
        values: float32 (N, D).
    """

    rows: np.ndarray
    values: Tensor

    def of(self, rows: np.ndarray) -> Tensor:
        """The features (n, D) of ``rows``, int64 (n,) in any order, all of which must be here."""
        positions = torch.from_numpy(np.searchsorted(self.rows, rows))
        return self.values[positions.to(self.values.device)]

    def among(self, rows: np.ndarray) -> "Features":
        """The features of those of ``rows``, int64 (n,) ascending, that are here."""
        found = rows[np.isin(rows, self.rows)]
        return Features(found, self.of(found))

    def updated(self, other: "Features") -> "Features":
        """The union of both; where both have a row, with the feature of ``other``."""
        kept = ~np.isin(self.rows, other.rows)
        rows = np.concatenate((self.rows[kept], other.rows))
        order = np.argsort(rows)
        values = torch.cat((self.values[torch.from_numpy(kept)], other.values))
        return Features(rows[order], values[torch.from_numpy(order)])
