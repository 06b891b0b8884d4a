"""Training data: pairs of a pack's images, and one process's share of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.class_plan import ClassPlan, GroupPairs
from pipelines.config import SamplingConfig
from pipelines.pack import Pack
from pipelines.plan import PairPlan, Pairs
from pipelines.selection import Selection
from runtime.errors import ConfigError, PackError


@dataclass(frozen=True)
class DrawnPairs:
    """Pairs and the rows of their n images.

    Attributes:
        pairs: the pairs, whose images are indices into the plan's labels.
        rows: int64 (n,), the rows of ``pairs.images`` in the pack's index.
    """

    pairs: Pairs | GroupPairs
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
    plan: PairPlan | ClassPlan

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
        """Independent pairs of the selected images.

        Args:
            pack: holds the images.
            selections: one for each of the pack's members.
            weights: those of the members' images; None for 1 each.
            seed, num_negatives, balanced: options of ``PairPlan``.

        Raises:
            PackError: the pack lacks what is selected, or no pairs can be made of the selection.
        """
        parts = _selected(pack, selections)
        rows = np.concatenate(parts)
        plan = PairPlan(
            pack.index.label[rows],
            None if weights is None else np.repeat(weights, [len(part) for part in parts]),
            seed=seed,
            num_negatives=num_negatives,
            balanced=balanced,
        )
        return cls(pack, rows, plan)

    @classmethod
    def select_groups(
        cls, pack: Pack, selections: Sequence[Selection], sampling: SamplingConfig, *, seed: int
    ) -> "PairData":
        """Groups of classes of the selected images; arguments and errors as those of ``select``,
        and of ``ClassPlan``."""
        rows = np.concatenate(_selected(pack, selections))
        index = pack.index
        return cls(
            pack, rows, ClassPlan(index.label[rows], index.domain[rows], sampling, seed=seed)
        )

    def draw(self, start: int, count: int) -> DrawnPairs:
        """What the plan has at positions ``[start, start + count)`` of its endless sequence."""
        pairs = self.plan.pairs(start, count)
        return DrawnPairs(pairs, self.rows[pairs.images])

    def substitute(self, drawn: DrawnPairs, item: int, attempt: int) -> int:
        """The row of an image to show in place of ``item``, 0 .. n-1, of the same class; each
        ``attempt``, counted from 0, gives a new draw, which may repeat an image."""
        bits = drawn.pairs.substitute_bits(item, attempt)
        return int(self.rows[self.plan.same_class(drawn.pairs.images[item], bits)])

    def keys(self, start: int, count: int) -> tuple[list[str], list[str]]:
        """The keys of the left and of the right image of each pair at ``[start, start + count)``;
        of a partner that is the mean of several images the first."""
        drawn = self.draw(start, count)
        keys = self.pack.keys(drawn.rows)
        right = drawn.pairs.right % len(keys)
        return [keys[i] for i in drawn.pairs.left.tolist()], [keys[i] for i in right.tolist()]


def _selected(pack: Pack, selections: Sequence[Selection]) -> list[np.ndarray]:
    """The selected rows of each of the pack's members, in its own index."""
    return [
        first + _rows(member, selection)
        for first, member, selection in zip(pack.first_rows, pack.members, selections, strict=True)
    ]


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
    """The part of each global step that one process takes.

    Attributes:
        global_batch: positions of the plan per step over all processes: pairs, or groups.
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
                f"a global batch of {self.global_batch} cannot be shared equally by "
                f"{self.world_size} ranks; choose a multiple of {self.world_size}"
            )

    @property
    def count(self) -> int:
        """The positions of a step that this process takes."""
        return self.global_batch // self.world_size

    def start(self, step: int) -> int:
        """The first position of ``step`` that this process takes."""
        return step * self.global_batch + self.rank * self.count
