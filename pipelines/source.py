"""What DALI is fed with: the encoded images of a step, straight from the memory-mapped shards."""

import logging

import numpy as np

from pipelines.augmentation import draw_augmentation, whole_images
from pipelines.config import AugmentConfig
from pipelines.graph import graph_inputs
from pipelines.hashing import draw
from pipelines.pack import Pack
from pipelines.plan import AUGMENTATION, PairPlan, Pairs
from runtime.errors import PackError

_SUBSTITUTE_TRIES = 20

log = logging.getLogger(__name__)


class PairSource:
    """Feeds the images of one rank's pairs, step after step, and announces those that follow.

    A sample that is found damaged is replaced by another image of its class, drawn by the plan.

    Args:
        pack: where the images are.
        rows: int64 (N,), the pack's rows to whose positions the plan refers.
        plan: the pairs.
        augment: the strength of the augmentation.
        global_batch: pairs of a step over all ranks.
        first: this rank's first pair in each step.
        count: B, this rank's pairs in each step.
        start_step: the step of DALI's first iteration.
        read_ahead: how many steps ahead the kernel is told what will be read.
        check_crc: compare the checksum of each image that is read.
        max_damaged: how many damaged samples are put up with.
    """

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        plan: PairPlan,
        augment: AugmentConfig,
        *,
        global_batch: int,
        first: int,
        count: int,
        start_step: int,
        read_ahead: int,
        check_crc: bool,
        max_damaged: int,
    ) -> None:
        self._pack, self._rows, self._plan, self._augment = pack, rows, plan, augment
        self._global_batch, self._first, self._count = global_batch, first, count
        self._start_step, self._read_ahead = start_step, read_ahead
        self._check_crc, self._max_damaged = check_crc, max_damaged
        self._planned: dict[int, tuple[Pairs, np.ndarray]] = {}
        self.damaged: set[int] = set()

    def __call__(self, info) -> tuple:
        step = self._start_step + info.iteration
        for later in range(step, step + self._read_ahead + 1):
            if later not in self._planned:
                self._planned[later] = self._draw(later)
                self._pack.prefetch(self._planned[later][1])
        pairs, rows = self._planned[step]
        images = self._pack.read(rows)
        self._find_damage(rows, images, self._check_crc)
        for place, row in enumerate(rows.tolist()):
            if row in self.damaged:
                rows[place], images[place] = self._substitute(pairs, place)
        keys = np.concatenate([draw(pairs.key, AUGMENTATION), draw(pairs.key, AUGMENTATION + 1)])
        index = self._pack.index
        return graph_inputs(
            images, draw_augmentation(self._augment, keys, index.width[rows], index.height[rows])
        )

    def take(self, step: int) -> tuple[Pairs, np.ndarray]:
        """The pairs of ``step`` and the rows (2B,) of their images, which are then forgotten."""
        return self._planned.pop(step)

    def restart(self, step: int) -> bool:
        """Feed from ``step`` on to a new pipeline, after the old one failed to decode an image.

        Returns:
            Whether a damaged sample was found among those handed out, by their checksums; if
            there was none, the failure had another cause.
        """
        before = len(self.damaged)
        for _, rows in self._planned.values():
            self._find_damage(rows, self._pack.read(rows), check_crc=True)
        self._planned.clear()
        self._start_step = step
        return len(self.damaged) > before

    def _draw(self, step: int) -> tuple[Pairs, np.ndarray]:
        pairs = self._plan.pairs(step * self._global_batch + self._first, self._count)
        return pairs, self._rows[np.concatenate([pairs.anchor, pairs.partner])]

    def _find_damage(self, rows: np.ndarray, images: list[np.ndarray], check_crc: bool) -> None:
        for row, image in zip(rows.tolist(), images, strict=True):
            if row in self.damaged or self._pack.intact(row, image, check_crc=check_crc):
                continue
            self.damaged.add(row)
            (key,) = self._pack.keys(np.array([row]))
            log.warning("sample %s of %s is damaged, it is replaced", key, self._pack.path)
            if len(self.damaged) > self._max_damaged:
                raise PackError(
                    f"more than {self._max_damaged} samples of {self._pack.path} are damaged; "
                    f"run `python -m sharding verify {self._pack.path}`"
                )

    def _substitute(self, pairs: Pairs, place: int) -> tuple[int, np.ndarray]:
        """Another readable image, its row and bytes, for ``place`` among the 2B of the pairs."""
        side, number = divmod(place, self._count)
        position = (pairs.partner if side else pairs.anchor)[number]
        for attempt in range(_SUBSTITUTE_TRIES):
            row = int(self._rows[self._plan.substitute(position, pairs.key[number], side, attempt)])
            (image,) = self._pack.read(np.array([row]))
            self._find_damage(np.array([row]), [image], self._check_crc)
            if row not in self.damaged:
                return row, image
        label = self._pack.index.label[self._rows[position]]
        raise PackError(
            f"class {self._pack.manifest.classes[label]} of {self._pack.path} has hardly a "
            f"readable image; run `python -m sharding verify {self._pack.path}`"
        )


class RowSource:
    """Feeds whole images of ``rows``, int64 (N,), in order; after the last batch, that one again.

    Raises:
        PackError: a sample is damaged. Nothing takes the place of an evaluation's image.
    """

    def __init__(self, pack: Pack, rows: np.ndarray, batch_size: int, *, check_crc: bool) -> None:
        self._pack, self._rows, self._batch_size = pack, rows, batch_size
        self._check_crc = check_crc

    def __call__(self, info) -> tuple:
        last = (len(self._rows) - 1) // self._batch_size
        rows = self.batch(min(info.iteration, last))
        self._pack.prefetch(self.batch(min(info.iteration + 1, last)))
        images = self._pack.read(rows)
        self._refuse_damage(rows, images, self._check_crc)
        index = self._pack.index
        return graph_inputs(images, whole_images(index.width[rows], index.height[rows]))

    def batch(self, number: int) -> np.ndarray:
        """The rows of a batch, int64 (b,)."""
        return self._rows[number * self._batch_size : (number + 1) * self._batch_size]

    def refuse_undecodable(self, number: int) -> None:
        """Raise PackError for a sample from batch ``number`` on whose checksum is wrong; called
        when DALI has failed, which happens a few batches ahead of the one that is wanted."""
        rows = self._rows[number * self._batch_size :]
        self._refuse_damage(rows, self._pack.read(rows), check_crc=True)

    def _refuse_damage(self, rows: np.ndarray, images: list[np.ndarray], check_crc: bool) -> None:
        for row, image in zip(rows.tolist(), images, strict=True):
            if not self._pack.intact(row, image, check_crc=check_crc):
                (key,) = self._pack.keys(np.array([row]))
                raise PackError(
                    f"sample {key} of {self._pack.path} is damaged; "
                    f"run `python -m sharding verify {self._pack.path}`"
                )
