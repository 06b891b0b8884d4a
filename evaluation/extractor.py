"""Extracts backbone features: each image once over all processes, or from the cache."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from nvidia import dali
from torch import Tensor

from evaluation.cache import FeatureCache, FeatureKey
from evaluation.features import Features
from evaluation.progress import Progress
from evaluation.trained import TrainedNetwork
from model.config import Precision
from pipelines.augmentation import AugmentedView
from pipelines.config import Decoding, InputConfig
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from runtime.device import dali_device
from runtime.distributed import Process
from runtime.errors import CheckpointError
from runtime.gather import all_gather, chunk_of


@dataclass(frozen=True)
class ExtractionConfig:
    """How features are computed.

    Attributes:
        input: how images are decoded; their checksums are compared in any case.
        batch_size: images per batch and process.
        precision: of the backbone's arithmetic.
        view: how images are augmented; None for the view of evaluation.
    """

    input: InputConfig
    batch_size: int = 32
    precision: Precision = "float32"
    view: AugmentedView | None = None

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of the backbone's arithmetic on ``device``."""
        precision = getattr(torch, self.precision)
        return torch.autocast(device.type, precision, enabled=precision != torch.float32)


@dataclass(frozen=True)
class Extraction:
    """Features, and the work that they took.

    Attributes:
        features: on the process's device.
        computed: how many of them were computed; the others come from the cache.
        seconds: duration of the extraction, the cache included.
    """

    features: Features
    computed: int
    seconds: float


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes the features of a pack's images, or finds them in a cache.

    Attributes:
        network: its backbone is used.
        pack: the images.
        process: this process; each computes its share.
        config: how features are computed.
        cache: where they are looked up first and stored afterwards; None keeps nothing.
    """

    network: TrainedNetwork
    pack: Pack
    process: Process
    config: ExtractionConfig
    cache: FeatureCache | None = None

    def extract(self, rows: np.ndarray) -> Extraction:
        """The features of ``rows``, int64 (N,) ascending; every process returns all of them.

        Raises:
            PackError: an image is damaged.
            CheckpointError: a feature is not finite.
        """
        started = time.perf_counter()
        values = torch.zeros(len(rows), self.width, device=self.process.device)
        key = self.key(self.cache.backbone) if self.cache and self.process.is_first else None
        missing = np.flatnonzero(~self._from_cache(key, rows, values))
        chunk = chunk_of(len(missing), self.process)
        computed = all_gather(self.run(rows[missing[chunk.slice]]), chunk, self.process)
        self._check_finite(computed, rows[missing])
        values[torch.from_numpy(missing).to(values.device)] = computed
        if self.cache is not None and key is not None and len(missing):
            self.cache.store(key, Features(rows[missing], computed.cpu()))
        return Extraction(Features(rows, values), len(missing), time.perf_counter() - started)

    def run(self, rows: np.ndarray) -> Tensor:
        """Features, float32 (n, D), of ``rows``, int64 (n,), computed by this process alone.

        Raises:
            PackError: an image is damaged.
        """
        precision = getattr(torch, self.config.precision)
        values = torch.zeros(len(rows), self.width, device=self.process.device)
        with torch.no_grad(), self.autocast():
            for places, images in self.images(rows, "features"):
                values[places] = self.network.extractor(images.to(precision)).float()
        return values

    def images(self, rows: np.ndarray, purpose: str) -> Iterator[tuple[slice, Tensor]]:
        """The images at ``rows``, int64 (n,), in order: which of them, and (b, 3, S, S) on the
        process's device. ``purpose`` is the name of the progress that is reported.

        Raises:
            PackError: an image is damaged.
        """
        if not len(rows):
            return
        decoding = Decoding(
            self.network.network.preprocessing, self.config.input, self.process.local_rank
        )
        loader = ImageLoader(
            self.pack, rows, decoding, batch_size=self.config.batch_size, view=self.config.view
        )
        loaded, first = np.full(len(rows), -1, dtype=np.int64), 0
        with Progress(purpose, len(rows), "image", self.process) as progress:
            for batch in loader:
                places = slice(first, first + len(batch.rows))
                yield places, batch.images.to(self.process.device)
                loaded[places] = batch.rows
                first = places.stop
                progress.add(len(batch.rows))
        if not np.array_equal(loaded, rows):
            raise RuntimeError("the loader returned different images than requested")

    def autocast(self) -> torch.autocast:
        """The context of the backbone's arithmetic."""
        return self.config.autocast(self.process.device)

    @property
    def width(self) -> int:
        """D, the width of a feature."""
        return self.network.network.width

    def key(self, backbone: str) -> FeatureKey:
        """What the features depend on; ``backbone`` is the sha256 of its name and weights."""
        settings = self.config.input
        return FeatureKey(
            backbone=backbone,
            pack=self.pack.manifest.fingerprint,
            index=_index_sha256(self.pack),
            transform=f"{self.network.network.preprocessing} {settings.dtype} "
            f"on {dali_device(settings.device)}, DALI {dali.__version__}, "
            f"torch {torch.__version__}"
            + ("" if self.config.view is None else f", {self.config.view}"),
            precision=self.config.precision,
            rows=len(self.pack.index),
            width=self.width,
        )

    def _from_cache(self, key: FeatureKey | None, rows: np.ndarray, values: Tensor) -> np.ndarray:
        """Fill ``values`` with what the first process finds in the cache; bool (N,), found."""
        flags = torch.zeros(len(rows), dtype=torch.int64, device=values.device)
        if self.cache is not None and key is not None:
            stored = self.cache.load(key, rows)
            positions = torch.from_numpy(np.searchsorted(rows, stored.rows)).to(values.device)
            flags[positions] = 1
            values[positions] = stored.values.to(values.device)
        self.process.broadcast_(flags)
        if flags.any():
            self.process.broadcast_(values)
        return flags.bool().cpu().numpy()

    def _check_finite(self, values: Tensor, rows: np.ndarray) -> None:
        broken = ~torch.isfinite(values).all(dim=1)
        if broken.any():
            first = rows[[int(broken.int().argmax())]]
            raise CheckpointError(
                f"the backbone gives NaN or infinite features for {int(broken.sum())} of "
                f"{len(rows)} images, first {self.pack.keys(first)[0]}; its training has "
                "diverged, take an earlier checkpoint"
            )


def _index_sha256(pack: Pack) -> str:
    """sha256 of the index's columns, which hold each image's place and checksum."""
    digest = hashlib.sha256()
    for name in (field.name for field in fields(pack.index)):
        column = getattr(pack.index, name)
        digest.update(f"{name} {column.dtype} {column.shape}\n".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
