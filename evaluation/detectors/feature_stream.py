"""Features of images of any source, batch by batch; what cannot be read is left out and named."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.extractor import ExtractionConfig
from evaluation.progress import Progress
from evaluation.trained import TrainedNetwork
from pipelines.config import Decoding
from pipelines.image_stream import ImageStream, SourceImage
from runtime.distributed import Process
from runtime.errors import CheckpointError, ConfigError


class StreamedFeatures(NamedTuple):
    """Features of b images.

    Attributes:
        items: int64 (b,), their positions in the sequence of images, ascending.
        values: float32 (b, D), on the process's device.
    """

    items: np.ndarray
    values: Tensor

    @classmethod
    def joined(cls, parts: Iterable["StreamedFeatures"]) -> "StreamedFeatures":
        """Those of one or more parts, in order."""
        items, values = zip(*parts, strict=True)
        return cls(np.concatenate(items), torch.cat(values))


class FeatureStream:
    """Iterates over the features of the readable ones of ``images``, once and in order.

    Args:
        network: its backbone is used.
        images: what to read.
        config: how features are computed.
        process: the only process.

    Raises:
        ConfigError: no image can be read.
        CheckpointError: a feature is not finite.
    """

    def __init__(
        self,
        network: TrainedNetwork,
        images: Sequence[SourceImage],
        config: ExtractionConfig,
        process: Process,
    ) -> None:
        self._network, self._images, self._config = network, images, config
        self._process = process
        decoding = Decoding(network.network.preprocessing, config.input, process.local_rank)
        self._stream = ImageStream(images, decoding, batch_size=config.batch_size)

    def __iter__(self) -> Iterator[StreamedFeatures]:
        seen = 0
        with Progress("features", len(self._images), "image", self._process) as progress:
            for batch in self._stream:
                values = self._features(batch.images)
                self._check_finite(values, batch.items)
                yield StreamedFeatures(batch.items, values)
                progress.add(int(batch.items[-1]) + 1 - seen)
                seen = int(batch.items[-1]) + 1
        if not seen:
            raise ConfigError(
                f"none of {len(self._images):,} images can be read; first {self.skipped[0]}"
            )

    @property
    def skipped(self) -> list[str]:
        """The name of each image that cannot be read, and why; complete after the iteration."""
        found = sorted(self._stream.skipped.items())
        return [f"{self._images[item].name}: {reason}" for item, reason in found]

    def all(self) -> StreamedFeatures:
        """The features of all readable images."""
        return StreamedFeatures.joined(self)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        device, precision = self._process.device, getattr(torch, self._config.precision)
        with self._config.autocast(device):
            return self._network.extractor(images.to(device, precision)).float()

    def _check_finite(self, values: Tensor, items: np.ndarray) -> None:
        broken = ~torch.isfinite(values).all(dim=1)
        if broken.any():
            first = self._images[int(items[int(broken.int().argmax())])].name
            raise CheckpointError(
                f"the backbone gives NaN or infinite features for the image {first}; its training "
                "has diverged, take an earlier checkpoint"
            )
