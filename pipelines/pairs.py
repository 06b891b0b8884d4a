"""What is trained on: pairs of a pack's images, and one process's share of them."""

from dataclasses import dataclass

import numpy as np

from pipelines.pack import Pack
from pipelines.plan import PairPlan, Pairs
from pipelines.selection import Selection
from runtime.errors import ConfigError


@dataclass(frozen=True)
class DrawnPairs:
    """n pairs and their images.

    Attributes:
        pairs: of positions in the plan's labels.
        rows: int64 (2n,), the rows of the anchors and then of the partners in the pack's index.
    """

    pairs: Pairs
    rows: np.ndarray


@dataclass(frozen=True)
class PairData:
    """Pairs of the selected images of a pack.

    Attributes:
        pack: where the images are.
        rows: int64 (N,), the rows of its index that are selected.
        plan: the pairs, as positions in ``rows``.
    """

    pack: Pack
    rows: np.ndarray
    plan: PairPlan

    @classmethod
    def select(
        cls,
        pack: Pack,
        selection: Selection,
        *,
        seed: int,
        num_negatives: int = 20,
        balanced: bool = True,
    ) -> "PairData":
        """The pairs of the selected images; the options are those of ``PairPlan``.

        Raises:
            PackError: the pack lacks what is selected, or the selection has no pairs.
        """
        rows = selection.rows(pack)
        labels = pack.index.label[rows]
        plan = PairPlan(labels, seed=seed, num_negatives=num_negatives, balanced=balanced)
        return cls(pack, rows, plan)

    def draw(self, start: int, count: int) -> DrawnPairs:
        """The pairs at positions ``[start, start + count)`` of the endless sequence."""
        pairs = self.plan.pairs(start, count)
        return DrawnPairs(pairs, self.rows[pairs.images])

    def substitute(self, drawn: DrawnPairs, item: int, attempt: int) -> int:
        """The row of another image of the class of image ``item`` of the 2n; each ``attempt``,
        counted from 0, gives another draw, which may repeat an image."""
        side, number = divmod(item, len(drawn.pairs.key))
        position, key = drawn.pairs.images[item], drawn.pairs.key[number]
        return int(self.rows[self.plan.substitute(position, key, side, attempt)])

    def keys(self, start: int, count: int) -> tuple[list[str], list[str]]:
        """The keys of the anchors and of the partners of ``count`` pairs from ``start`` on."""
        keys = self.pack.keys(self.draw(start, count).rows)
        return keys[:count], keys[count:]


@dataclass(frozen=True)
class Share:
    """The pairs of each global step that one process takes.

    Attributes:
        global_batch: pairs of a step over all processes.
        rank: which of the equal parts of a step is taken.
        world_size: how many parts there are.

    Raises:
        ConfigError: the pairs cannot be shared equally.
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
