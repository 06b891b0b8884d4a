"""External sources for DALI: encoded images, straight from the memory-mapped shards."""

import logging

import numpy as np

from model.geometry import evaluation_view
from pipelines.augmentation import Augmentation, AugmentedView, draw_augmentation, unchanged
from pipelines.config import AugmentConfig, Decoding
from pipelines.damage import DamageCheck, undecodable
from pipelines.graph import GraphInputs, graph_inputs
from pipelines.pack import Pack
from pipelines.pairs import DrawnPairs, PairData, Share
from runtime.errors import PackError

_SUBSTITUTE_TRIES = 20

log = logging.getLogger(__name__)


class PairSource:
    """Feeds the images of one process's pairs, step by step, and prefetches those of later steps.

    A damaged sample is replaced by another image of its class, which the plan draws.

    Args:
        data: the pairs.
        augment: strength of the augmentation.
        decoding: how the images are decoded; more than its ``max_damaged`` damaged samples are an
            error.
        share: which part of a step this process takes.
        start_step: the step that DALI's iteration 0 asks for.

    Attributes:
        damaged: the rows of the damaged samples found so far.
    """

    def __init__(
        self,
        data: PairData,
        augment: AugmentConfig,
        decoding: Decoding,
        share: Share,
        *,
        start_step: int,
    ) -> None:
        self._data, self._pack, self._augment, self._share = data, data.pack, augment, share
        self._decoding, self._start_step = decoding, start_step
        self._check = DamageCheck(data.pack, check_crc=decoding.config.check_crc)
        self._drawn: dict[int, DrawnPairs] = {}
        self.damaged: set[int] = set()

    def __call__(self, info) -> GraphInputs:
        step = self._start_step + info.iteration
        for later in range(step, step + self._decoding.config.prefetch + 1):
            if later not in self._drawn:
                self._drawn[later] = self._data.draw(self._share.start(later), self._share.count)
                self._pack.prefetch(self._drawn[later].rows)
        drawn = self._drawn[step]
        images = self._pack.read(drawn.rows)
        self._record(drawn.rows[self._check.items(drawn.rows, images)])
        for item, row in enumerate(drawn.rows.tolist()):
            if row in self.damaged:
                # Replaced in the drawn pairs themselves: ``take`` returns the rows really shown.
                drawn.rows[item], images[item] = self._substitute(drawn, item)
        index = self._pack.index
        augmentation = draw_augmentation(
            self._augment,
            self._decoding.preprocessing.image_size,
            drawn.pairs.augmentation_keys,
            index.width[drawn.rows],
            index.height[drawn.rows],
        )
        return graph_inputs(images, augmentation)

    def take(self, step: int) -> DrawnPairs:
        """Remove and return the pairs of ``step``, with the rows that were really shown."""
        return self._drawn.pop(step)

    def restart(self, step: int) -> bool:
        """Look for the sample that made a pipeline fail, and start again at ``step`` for a new one.

        Returns:
            Whether a damaged sample was found among those in flight, by its checksum or by decoding
            each on its own. If not, the failure had a different cause.

        Raises:
            RuntimeError: DALI can no longer decode any image.
        """
        rows = np.unique(np.concatenate([drawn.rows for drawn in self._drawn.values()]))
        images = self._pack.read(rows)
        damaged = self._check.items(rows, images, check_crc=True) or undecodable(
            images, self._decoding.config, self._decoding.device_id
        )
        before = len(self.damaged)
        self._record(rows[damaged])
        self._drawn.clear()
        self._start_step = step
        return len(self.damaged) > before

    def _record(self, rows: np.ndarray) -> None:
        """Count and log the damaged samples among ``rows`` that are not known yet."""
        most = self._decoding.config.max_damaged
        for row in sorted({*rows.tolist()} - self.damaged):
            self.damaged.add(row)
            found = self._pack.locate(row)
            path = found.pack.path
            log.warning("sample %s of %s is damaged and is replaced", found.key, path)
            if len(self.damaged) > most:
                raise PackError(
                    f"more than {most} samples are damaged, the last one in {path}; "
                    f"run `python -m sharding verify {path}`"
                )

    def _substitute(self, drawn: DrawnPairs, item: int) -> tuple[int, np.ndarray]:
        """A readable image to show in place of ``item``, 0 .. n-1: its row and its bytes."""
        for attempt in range(_SUBSTITUTE_TRIES):
            rows = np.array([self._data.substitute(drawn, item, attempt)])
            (image,) = self._pack.read(rows)
            if self._check.items(rows, [image]):
                self._record(rows)
            if (row := int(rows[0])) not in self.damaged:
                return row, image
        pack, row = self._pack.locate(int(drawn.rows[item]))
        raise PackError(
            f"class {pack.manifest.classes[pack.index.label[row]]} of {pack.path} has almost no "
            f"readable images; run `python -m sharding verify {pack.path}`"
        )


class ImageSource:
    """Feeds the images of ``rows``, int64 (N,), in order; past the end it repeats the last batch.

    Args:
        pack: holds the images.
        rows: rows of its index.
        decoding: how the images are decoded.
        batch_size: images per batch.
        view: how they are augmented; None for the view of evaluation.

    Raises:
        PackError: a sample is damaged; its image is never substituted.
    """

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        decoding: Decoding,
        batch_size: int,
        view: AugmentedView | None = None,
    ) -> None:
        self._pack, self._rows, self._decoding, self._view = pack, rows, decoding, view
        self._batch_size = batch_size
        self._check = DamageCheck(pack, check_crc=True)

    def __call__(self, info) -> GraphInputs:
        last = (len(self._rows) - 1) // self._batch_size
        rows = self.batch(min(info.iteration, last))
        self._pack.prefetch(self.batch(min(info.iteration + 1, last)))
        images = self._pack.read(rows)
        self._refuse(rows[self._check.items(rows, images)])
        return graph_inputs(images, self._augmentation(rows))

    def _augmentation(self, rows: np.ndarray) -> Augmentation:
        preprocessing, index = self._decoding.preprocessing, self._pack.index
        width, height = index.width[rows], index.height[rows]
        if self._view is not None:
            return self._view.draw(preprocessing.image_size, rows, width, height)
        return unchanged(evaluation_view(preprocessing, width, height))

    def batch(self, number: int) -> np.ndarray:
        """int64 (b,), the rows of batch ``number``."""
        return self._rows[number * self._batch_size : (number + 1) * self._batch_size]

    def refuse_undecodable(self, number: int) -> None:
        """Raise PackError for a sample that DALI cannot decode, in batch ``number`` or one
        prepared ahead of it; call this when a pipeline has failed."""
        ahead = self._decoding.config.prefetch + 1
        rows = self._rows[number * self._batch_size : (number + 1 + ahead) * self._batch_size]
        images = self._pack.read(rows)
        self._refuse(rows[undecodable(images, self._decoding.config, self._decoding.device_id)])

    def _refuse(self, rows: np.ndarray) -> None:
        """Raise PackError for the first of the damaged ``rows``, if any."""
        if len(rows):
            found = self._pack.locate(int(rows[0]))
            path = found.pack.path
            raise PackError(
                f"sample {found.key} of {path} is damaged; run `python -m sharding verify {path}`"
            )
