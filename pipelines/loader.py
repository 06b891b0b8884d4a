"""Batches of training pairs and of evaluation images, decoded by DALI, as torch tensors."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from nvidia.dali import Pipeline

from pipelines.augmentation import AugmentedView
from pipelines.config import AugmentConfig, Decoding
from pipelines.graph import image_pipeline
from pipelines.pack import Pack
from pipelines.pairs import DrawnPairs, PairData, Share
from pipelines.source import ImageSource, PairSource

MAX_STEPS_AHEAD = 2


@dataclass(frozen=True)
class PairBatch:
    """One process's pairs of one global step; n images, p pairs, C classes in the plan.

    Attributes:
        step: the global step.
        images: (n, 3, S, S) on the device, channels-last; nothing overwrites them, so they are safe
            to keep. Of independent pairs first the p anchors, then their p partners. Of a frozen
            backbone their features, float32 (n, D).
        left: int64 (p,) on the device, the place in ``images`` of each pair's first image.
        right: int64 (p,) on the device, that of its partner; see ``GroupPairs`` for means.
        different: bool (p,) on the device, True where the two differ in class.
        labels: int64 (n,) on the device, classes 0 .. C-1 of the images.
        rows: int64 (n,) NumPy, the images' rows in the pack's index.
    """

    step: int
    images: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    different: torch.Tensor
    labels: torch.Tensor
    rows: np.ndarray

    @classmethod
    def of(
        cls, step: int, images: torch.Tensor, drawn: DrawnPairs, classes: np.ndarray
    ) -> "PairBatch":
        """The batch of the pairs ``drawn``, with ``images`` on their device and the plan's
        ``classes``."""

        def on_device(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(images.device, non_blocking=True)

        pairs = drawn.pairs
        return cls(
            step=step,
            images=images,
            left=on_device(pairs.left),
            right=on_device(pairs.right),
            different=on_device(pairs.different),
            labels=on_device(classes[pairs.images].astype(np.int64)),
            rows=drawn.rows,
        )


@dataclass(frozen=True)
class ImageBatch:
    """b consecutive images of an ``ImageLoader``.

    Attributes:
        images: (b, 3, S, S) on the device, channels-last; nothing overwrites them, so they are
            safe to keep.
        rows: int64 (b,) NumPy, the images' rows in the pack's index.
    """

    images: torch.Tensor
    rows: np.ndarray


class PairLoader:
    """An endless iterator over one process's share of the plan's pairs.

    Global step t holds the positions ``[t*G, (t+1)*G)`` of the plan, pairs or groups, of which rank
    r of W takes the r-th of W equal contiguous parts. A damaged sample is replaced by another image
    of its class, and its key is logged.

    Args:
        data: the pairs.
        augment: strength of the augmentation.
        decoding: how the images are decoded.
        share: which part of a step this process takes.
        start_step: the first step.

    Raises:
        ConfigError: a GPU is requested and none is available.
        PackError: more than ``max_damaged`` samples are damaged.
    """

    def __init__(
        self,
        data: PairData,
        augment: AugmentConfig,
        decoding: Decoding,
        share: Share,
        *,
        start_step: int = 0,
    ) -> None:
        self._data, self._decoding, self._share = data, decoding, share
        self._step = start_step
        self._source = PairSource(data, augment, decoding, share, start_step=start_step)
        self._images: Iterator[torch.Tensor] | None = None

    @property
    def num_damaged(self) -> int:
        """How many different damaged samples this process has found so far."""
        return len(self._source.damaged)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        images = self._next_images()
        drawn = self._source.take(self._step)
        batch = PairBatch.of(self._step, images, drawn, self._data.plan.classes)
        self._step += 1
        return batch

    def _next_images(self) -> torch.Tensor:
        """The next batch; if an undecodable image broke the pipeline, a new one is built."""
        while True:
            try:
                if self._images is None:
                    pipeline = image_pipeline(
                        self._source,
                        self._decoding,
                        batch_size=self._data.plan.images_per_position * self._share.count,
                        size_hint=_size_hint(self._data.pack, self._decoding),
                    )
                    self._images = tensor_batches(pipeline)
                return next(self._images)
            except RuntimeError:
                if not self._source.restart(self._step):
                    raise
                self._images = None


class ImageLoader:
    """Iterates over the images of ``rows`` in order, preprocessed for evaluation or augmented as in
    ``view``, in batches of ``batch_size`` images; the last may have fewer.

    Raises:
        ConfigError: a GPU is requested and none is available.
        PackError: a sample is damaged.
    """

    def __init__(
        self,
        pack: Pack,
        rows: np.ndarray,
        decoding: Decoding,
        *,
        batch_size: int,
        view: AugmentedView | None = None,
    ) -> None:
        self._pack, self._decoding, self._batch_size = pack, decoding, batch_size
        self._length = -(-len(rows) // batch_size)
        self._source = ImageSource(pack, rows, decoding, batch_size, view)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ImageBatch]:
        pipeline = image_pipeline(
            self._source,
            self._decoding,
            batch_size=self._batch_size,
            size_hint=_size_hint(self._pack, self._decoding),
        )
        images = tensor_batches(pipeline)
        for number in range(len(self)):
            try:
                batch = next(images)
            except RuntimeError:
                self._source.refuse_undecodable(number)
                raise
            yield ImageBatch(batch, self._source.batch(number))


def tensor_batches(pipeline: Pipeline) -> Iterator[torch.Tensor]:
    """Endless (n, 3, S, S) batches in channels-last order.

    On a GPU they are queued on torch's current stream without waiting for it, except that the host
    stays at most ``MAX_STEPS_AHEAD`` batches ahead of the GPU.
    """
    if pipeline.device_id is None:
        while True:
            yield _images(pipeline.run())
    ahead: deque[torch.cuda.Event] = deque()
    while True:
        if len(ahead) == MAX_STEPS_AHEAD:
            ahead.popleft().synchronize()
        stream = torch.cuda.current_stream(pipeline.device_id)
        images = _images(pipeline.run(stream))
        ahead.append(stream.record_event())
        yield images


def _images(outputs: tuple) -> torch.Tensor:
    (images,) = outputs
    return torch.from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)


def _size_hint(pack: Pack, decoding: Decoding) -> tuple[int, int]:
    """Width and height in pixels for which the GPU's decoder allocates memory at the start."""
    index, quantile = pack.index, decoding.config.preallocate
    return int(np.quantile(index.width, quantile)), int(np.quantile(index.height, quantile))
