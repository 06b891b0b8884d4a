"""Batches of images from any source, of which those that cannot be read are left out."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple, Protocol

import numpy as np
import torch

from model.geometry import evaluation_view
from pipelines.augmentation import unchanged
from pipelines.config import Decoding
from pipelines.damage import undecodable
from pipelines.graph import GraphInputs, graph_inputs, image_pipeline
from pipelines.loader import MAX_STEPS_AHEAD, tensor_batches
from pipelines.threads import cores_per_process


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG or PNG image that DALI can decode; its width and height are those in its header."""

    content: bytes
    width: int
    height: int


class UnreadableImage(Exception):
    """An image that cannot be read; the message says why."""


class SourceImage(Protocol):
    """An image that is yet to be read."""

    @property
    def name(self) -> str:
        """What it is called in results and messages."""

    def read(self) -> EncodedImage:
        """Read and check it, in any thread; UnreadableImage where that fails."""


class StreamedBatch(NamedTuple):
    """b readable images of an ``ImageStream``.

    Attributes:
        images: (b, 3, S, S) on the device, channels-last, preprocessed for evaluation.
        items: int64 (b,) NumPy, their positions in the sequence of images, ascending.
    """

    images: torch.Tensor
    items: np.ndarray


class ImageStream:
    """Iterates over the readable ones of ``images`` in order, in batches of ``batch_size``; the
    last may have fewer.

    Args:
        images: read ahead by as many threads as there are cores.
        decoding: how they are decoded.
        batch_size: images per batch.

    Attributes:
        skipped: why each image that cannot be read is left out, by its position; complete at the
            end of the iteration.

    Raises:
        ConfigError: a GPU is requested and none is available.
    """

    def __init__(
        self, images: Sequence[SourceImage], decoding: Decoding, *, batch_size: int
    ) -> None:
        self._images, self._decoding, self._batch_size = images, decoding, batch_size
        self.skipped: dict[int, str] = {}

    def __iter__(self) -> Iterator[StreamedBatch]:
        with closing(self._readable()) as readable:
            source = _Source(readable, self._decoding, self._batch_size)
            batches: Iterator[torch.Tensor] | None = None
            while source.has_more():
                try:
                    if batches is None:
                        pipeline = image_pipeline(
                            source, self._decoding, batch_size=self._batch_size
                        )
                        batches = tensor_batches(pipeline)
                    images = next(batches)
                except RuntimeError:
                    if not (failed := source.restart()):
                        raise
                    self.skipped |= dict.fromkeys(failed, "DALI cannot decode it")
                    batches = None
                else:
                    yield StreamedBatch(images, source.take())

    def _readable(self) -> Generator["_Item"]:
        """The readable images in order, of which two batches are read ahead."""
        pool, ahead = ThreadPoolExecutor(cores_per_process()), deque[Future[EncodedImage]]()
        waiting = iter(self._images)
        try:
            for number in range(len(self._images)):
                missing = 2 * self._batch_size - len(ahead)
                ahead.extend(pool.submit(image.read) for image in islice(waiting, missing))
                try:
                    yield _Item(number, ahead.popleft().result())
                except UnreadableImage as error:
                    self.skipped[number] = str(error)
        finally:
            pool.shutdown(cancel_futures=True)


class _Item(NamedTuple):
    number: int
    image: EncodedImage


class _Source:
    """Feeds batches to DALI and knows which of them it has not returned yet; past the end it
    repeats the last one."""

    def __init__(self, readable: Iterator[_Item], decoding: Decoding, batch_size: int) -> None:
        self._readable, self._decoding, self._batch_size = readable, decoding, batch_size
        self._in_flight: deque[list[_Item]] = deque()
        # DALI does not copy the bytes, and on a GPU a batch is returned before it is decoded.
        self._returned: deque[list[_Item]] = deque(maxlen=MAX_STEPS_AHEAD + 1)
        self._last: list[_Item] = []

    def __call__(self, info: object) -> GraphInputs:
        if batch := list(islice(self._readable, self._batch_size)):
            self._in_flight.append(batch)
            self._last = batch
        images = [item.image for item in self._last]
        width, height = np.array([(image.width, image.height) for image in images]).T
        view = evaluation_view(self._decoding.preprocessing, width, height)
        return graph_inputs(_arrays(self._last), unchanged(view))

    def has_more(self) -> bool:
        """Whether there is a batch that ``take`` has not returned."""
        if not self._in_flight:
            first = list(islice(self._readable, 1))
            self._readable = chain(first, self._readable)
            return bool(first)
        return True

    def take(self) -> np.ndarray:
        """int64 (b,), the numbers of the images of the next batch that DALI returns."""
        batch = self._in_flight.popleft()
        self._returned.append(batch)
        return np.array([item.number for item in batch])

    def restart(self) -> list[int]:
        """Leave out what DALI cannot decode among the batches that it has not returned, and begin
        again with the others for a new pipeline; returns the numbers of those left out."""
        items = list(chain.from_iterable(self._in_flight))
        found = undecodable(_arrays(items), self._decoding.config, self._decoding.device_id)
        failed = [items[place].number for place in found]
        self._in_flight.clear()
        left = [item for item in items if item.number not in failed]
        self._readable = chain(left, self._readable)
        return failed


def _arrays(items: list[_Item]) -> list[np.ndarray]:
    return [np.frombuffer(item.image.content, dtype=np.uint8) for item in items]
