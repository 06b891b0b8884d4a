"""Batches of training pairs and of evaluation images, decoded by DALI, as torch tensors."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.config import AugmentConfig, InputConfig
from pipelines.graph import image_pipeline
from pipelines.pack import Pack
from pipelines.plan import PairPlan
from pipelines.source import PairSource, RowSource
from runtime.device import dali_device
from runtime.errors import PackError


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
    r-th of W equal runs. Images are drawn from ``rows``, to whose positions the plan refers. A
    sample that turns out to be damaged is replaced by another of its class and logged by key.

    Raises:
        PackError: G is not a multiple of W, a GPU is asked for that is not there, or more samples
            are damaged than the configuration puts up with.
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
        self._source = PairSource(
            pack,
            rows,
            plan,
            augment,
            global_batch=global_batch,
            first=rank * per_rank,
            count=per_rank,
            start_step=start_step,
            read_ahead=config.prefetch,
            check_crc=config.check_crc,
            max_damaged=config.max_damaged,
        )
        self._run_dali = lambda: _images(self._source, 2 * per_rank, pack, config, device_id)
        self._images = self._run_dali()

    @property
    def num_damaged(self) -> int:
        """Distinct samples that this rank has found damaged so far."""
        return len(self._source.damaged)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        images = self._next_images()
        pairs, rows = self._source.take(self._step)
        positions = np.concatenate([pairs.anchor, pairs.partner])
        labels = torch.from_numpy(self._plan.classes[positions].astype(np.int64))
        batch = PairBatch(
            step=self._step,
            images=images,
            different=torch.from_numpy(pairs.different).to(images.device, non_blocking=True),
            labels=labels.to(images.device, non_blocking=True),
            rows=rows,
        )
        self._step += 1
        return batch

    def _next_images(self) -> torch.Tensor:
        """The next batch; a pipeline that an undecodable image has killed is built anew."""
        while True:
            try:
                return next(self._images)
            except RuntimeError:
                if not self._source.restart(self._step):
                    raise
                self._images = self._run_dali()


class ImageLoader:
    """Iterates over the images of ``rows`` in order, squashed to S x S, in batches of
    ``batch_size`` of which the last may be short.

    Raises:
        PackError: a sample is damaged, or a GPU is asked for that is not there.
    """

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        config: InputConfig,
        *,
        batch_size: int,
        device_id: int = 0,
    ) -> None:
        self._length = -(-len(rows) // batch_size)
        self._source = RowSource(pack, rows, batch_size, check_crc=config.check_crc)
        self._run_dali = lambda: _images(self._source, batch_size, pack, config, device_id)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ImageBatch]:
        images = self._run_dali()
        for number in range(len(self)):
            try:
                batch = next(images)
            except RuntimeError:
                self._source.refuse_undecodable(number)
                raise
            yield ImageBatch(batch, self._source.batch(number))


def _images(
    source: Callable, batch_size: int, pack: Pack, config: InputConfig, device_id: int
) -> Iterator[torch.Tensor]:
    """Endless (n, 3, S, S) batches, views of DALI's own memory in channels-last order."""
    device = dali_device(config.device)
    pipeline = image_pipeline(
        source,
        batch_size=batch_size,
        image_size=config.image_size,
        device=device,
        device_id=device_id if device == "gpu" else None,
        num_threads=config.num_threads or _cores_per_process(),
        prefetch=config.prefetch,
        half=config.dtype == "float16",
        hw_decoder_load=config.hw_decoder_load,
        width_hint=int(np.quantile(pack.index.width, config.preallocate)),
        height_hint=int(np.quantile(pack.index.height, config.preallocate)),
    )
    while True:
        (output,) = pipeline.run()
        yield torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)


def _cores_per_process() -> int:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // processes)
