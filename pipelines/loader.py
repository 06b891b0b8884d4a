"""Batches of training pairs and of evaluation images, decoded by DALI, as torch tensors."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pipelines.augmentation import AugmentConfig, draw_augmentation, whole_images
from pipelines.graph import graph_inputs, image_pipeline
from pipelines.hashing import draw
from pipelines.pack import Pack
from pipelines.plan import AUGMENTATION, PairPlan, Pairs
from sharding.errors import PackError


@dataclass(frozen=True)
class InputConfig:
    """How images are decoded.

    Attributes:
        device: where DALI decodes; ``auto`` is the GPU where torch sees one.
        image_size: height and width of the images in pixels.
        num_threads: DALI's worker threads; 0 stands for this process's share of the cores.
        prefetch: batches prepared ahead of the one in use.
        dtype: type of the images.
    """

    device: Literal["auto", "cpu", "gpu"] = "auto"
    image_size: int = 224
    num_threads: int = 0
    prefetch: int = 2
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.image_size < 1 or self.prefetch < 1 or self.num_threads < 0:
            raise ValueError(
                "input.image_size and input.prefetch must be at least 1, "
                "input.num_threads at least 0"
            )

    @property
    def resolved_device(self) -> str:
        """``cpu`` or ``gpu``; PackError when a GPU is asked for and there is none."""
        available = torch.cuda.is_available()
        if self.device == "gpu" and not available:
            raise PackError("input.device is gpu, but no GPU is visible; use auto or cpu")
        return "gpu" if available and self.device != "cpu" else "cpu"


@dataclass(frozen=True)
class PairBatch:
    """One rank's pairs of one global step; B pairs, C classes in the plan.

    Attributes:
        step: the global step.
        images: (2B, 3, S, S) on the device, channels-last, the anchors and then the partners.
        different: bool (B,) on the device, True where anchor and partner differ in class.
        labels: int64 (2B,) on the device, classes 0 .. C-1 of the images.
        rows: int64 (2B,) NumPy, the images' rows in the pack's index.
    """

    step: int
    images: torch.Tensor
    different: torch.Tensor
    labels: torch.Tensor
    rows: np.ndarray


@dataclass(frozen=True)
class ImageBatch:
    """b images in order.

    Attributes:
        images: (b, 3, S, S) on the device, channels-last.
        rows: int64 (b,) NumPy, the images' rows in the pack's index.
    """

    images: torch.Tensor
    rows: np.ndarray


class PairLoader:
    """An endless iterator over one rank's share of the plan's pairs.

    Global step t holds the pairs ``[t*G, (t+1)*G)`` of the plan, of which rank r of W takes the
    r-th of W equal runs. Images are drawn from ``rows``, to whose positions the plan's refer.

    Raises:
        PackError: G is not a multiple of W, or a GPU is asked for that is not there.
    """

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        plan: PairPlan,
        augment: AugmentConfig,
        config: InputConfig,
        *,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        device_id: int = 0,
    ) -> None:
        if global_batch % world_size:
            raise PackError(
                f"a global batch of {global_batch} pairs cannot be shared equally by "
                f"{world_size} ranks; choose a multiple of {world_size}"
            )
        per_rank = global_batch // world_size
        self._plan = plan
        self._step = start_step
        self._source = _PairSource(
            pack, rows, plan, augment, config.prefetch, global_batch, rank * per_rank, per_rank,
            start_step,
        )  # fmt: skip
        self._images = _images(self._source, 2 * per_rank, config, device_id)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        images = next(self._images)
        pairs, rows = self._source.taken(self._step)
        positions = np.concatenate([pairs.anchor, pairs.partner])
        batch = PairBatch(
            step=self._step,
            images=images,
            different=torch.from_numpy(pairs.different).to(images.device, non_blocking=True),
            labels=torch.from_numpy(self._plan.classes[positions].astype(np.int64)).to(
                images.device, non_blocking=True
            ),
            rows=rows,
        )
        self._step += 1
        return batch


class ImageLoader:
    """Iterates once over the images of ``rows`` in order, squashed to S x S, in batches of
    ``batch_size`` of which the last may be short."""

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        config: InputConfig,
        *,
        batch_size: int,
        device_id: int = 0,
    ) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._source = _RowSource(pack, rows, batch_size)
        self._config = config
        self._device_id = device_id

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        batches = _images(self._source, self._batch_size, self._config, self._device_id)
        for number in range(len(self)):
            yield ImageBatch(next(batches), self._source.rows(number))


class _PairSource:
    """Feeds DALI with the pairs of consecutive steps and announces those that follow."""

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        plan: PairPlan,
        augment: AugmentConfig,
        read_ahead: int,
        global_batch: int,
        first: int,
        count: int,
        start_step: int,
    ) -> None:
        self._pack, self._rows, self._plan, self._augment = pack, rows, plan, augment
        self._global_batch, self._first, self._count = global_batch, first, count
        self._start_step, self._read_ahead = start_step, read_ahead
        self._planned: dict[int, tuple[Pairs, np.ndarray]] = {}

    def __call__(self, info) -> tuple:
        step = self._start_step + info.iteration
        for later in range(step, step + self._read_ahead + 1):
            if later not in self._planned:
                self._planned[later] = self._draw(later)
                self._pack.announce(self._planned[later][1])
        pairs, rows = self._planned[step]
        index = self._pack.index
        keys = np.concatenate([draw(pairs.key, AUGMENTATION), draw(pairs.key, AUGMENTATION + 1)])
        augmentation = draw_augmentation(self._augment, keys, index.width[rows], index.height[rows])
        return graph_inputs(self._pack.read(rows), augmentation)

    def taken(self, step: int) -> tuple[Pairs, np.ndarray]:
        """The pairs of ``step`` and the rows (2B,) of their images; forgotten afterwards."""
        return self._planned.pop(step)

    def _draw(self, step: int) -> tuple[Pairs, np.ndarray]:
        pairs = self._plan.pairs(step * self._global_batch + self._first, self._count)
        return pairs, self._rows[np.concatenate([pairs.anchor, pairs.partner])]


class _RowSource:
    """Feeds DALI with whole images in order; once they are all given, with the last batch."""

    def __init__(self, pack: Pack, rows: np.ndarray, batch_size: int) -> None:
        self._pack, self._rows, self._batch_size = pack, rows, batch_size

    def __call__(self, info) -> tuple:
        last = (len(self._rows) - 1) // self._batch_size
        rows = self.rows(min(info.iteration, last))
        self._pack.announce(self.rows(min(info.iteration + 1, last)))
        index = self._pack.index
        return graph_inputs(
            self._pack.read(rows), whole_images(index.width[rows], index.height[rows])
        )

    def rows(self, batch: int) -> np.ndarray:
        return self._rows[batch * self._batch_size : (batch + 1) * self._batch_size]


def _images(
    source: Callable, batch_size: int, config: InputConfig, device_id: int
) -> Iterator[torch.Tensor]:
    """Endless (n, 3, S, S) batches, views of DALI's own memory in channels-last order."""
    device = config.resolved_device
    pipeline = image_pipeline(
        source,
        batch_size=batch_size,
        image_size=config.image_size,
        device=device,
        device_id=device_id if device == "gpu" else None,
        num_threads=config.num_threads or _cores_per_process(),
        prefetch=config.prefetch,
        half=config.dtype == "float16",
    )
    while True:
        (output,) = pipeline.run()
        yield torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)


def _cores_per_process() -> int:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // processes)
