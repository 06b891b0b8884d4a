"""Training data: pairs of a pack's images, and one process's share of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.pack import Pack
from pipelines.plan import PairPlan, Pairs
from pipelines.selection import Selection
from runtime.errors import ConfigError, PackError


@dataclass(frozen=True)
class DrawnPairs:
    """n pairs and the rows of their images.

    Attributes:
        pairs: the pairs, whose images are indices into the plan's labels.
        rows: int64 (2n,), the rows of the anchors, then of the partners, in the pack's index.
    """

    pairs: Pairs
    rows: np.ndarray


@dataclass(frozen=True)
class PairData:
    """Pairs of the selected images of a pack, or of several joined ones.

    Attributes:
        pack: holds the images.
        rows: int64 (N,), the selected rows of its index.
        plan: draws the pairs; its images are indices into ``rows``.
    """

    pack: Pack
    rows: np.ndarray
    plan: PairPlan

    @classmethod
    def select(
        cls,
        pack: Pack,
        selections: Sequence[Selection],
        weights: Sequence[float] | None = None,
        *,
        seed: int,
        num_negatives: int = 20,
        balanced: bool = True,
    ) -> "PairData":
        """The pairs of the selected images.

        Args:
            pack: holds the images.
            selections: one for each of the pack's members.
            weights: those of the members' images; None for 1 each.
            seed, num_negatives, balanced: options of ``PairPlan``.

        Raises:
            PackError: the pack lacks what is selected, or no pairs can be made of the selection.
        """
        parts = [_rows(member, part) for member, part in zip(pack.members, selections, strict=True)]
        rows = np.concatenate(
            [first + part for first, part in zip(pack.first_rows, parts, strict=True)]
        )
        plan = PairPlan(
            pack.index.label[rows],
            None if weights is None else np.repeat(weights, [len(part) for part in parts]),
            seed=seed,
            num_negatives=num_negatives,
            balanced=balanced,
        )
        return cls(pack, rows, plan)

    def draw(self, start: int, count: int) -> DrawnPairs:
        """The pairs at positions ``[start, start + count)`` of the endless sequence."""
        pairs = self.plan.pairs(start, count)
        return DrawnPairs(pairs, self.rows[pairs.images])

    def substitute(self, drawn: DrawnPairs, item: int, attempt: int) -> int:
        """The row of an image to show in place of ``item``, 0 .. 2n-1, of the same class; each
        ``attempt``, counted from 0, gives a new draw, which may repeat an image."""
        side, pair = divmod(item, len(drawn.pairs.key))
        image, key = drawn.pairs.images[item], drawn.pairs.key[pair]
        return int(self.rows[self.plan.substitute(image, key, side, attempt)])

    def keys(self, start: int, count: int) -> tuple[list[str], list[str]]:
        """The keys of the anchors and those of the partners at ``[start, start + count)``."""
        keys = self.pack.keys(self.draw(start, count).rows)
        return keys[:count], keys[count:]


def _rows(pack: Pack, selection: Selection) -> np.ndarray:
    """The selected rows; PackError if there are none."""
    rows = selection.rows(pack)
    if not len(rows):
        raise PackError(
            f"{pack.path}: no image is selected; select more domains, classes or splits"
        )
    return rows


@dataclass(frozen=True)
class Share:
    """The pairs of each global step that one process takes.

    Attributes:
        global_batch: pairs per step over all processes.
        rank: which of the equal parts of a step this process takes, from 0 on.
        world_size: number of processes, each of which takes one part.

    Raises:
        ConfigError: ``global_batch`` is not a multiple of ``world_size``.
    """

    global_batch: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.global_batch % self.world_size:
            raise ConfigError(
                f"a global batch of {self.global_batch} pairs cannot be shared equally by "
                f"{self.world_size} ranks; choose a multiple of {self.world_size}"
            )

    @property
    def count(self) -> int:
        """B, the pairs of a step that this process takes."""
        return self.global_batch // self.world_size

    def start(self, step: int) -> int:
        """The position of this process's first pair of ``step``."""
        return step * self.global_batch + self.rank * self.count
