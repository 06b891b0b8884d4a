"""Training on the features of a frozen backbone, which sees each view of an image once."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evaluation.extractor import FeatureExtractor
from evaluation.trained import backbone_sha256
from model.network import ReSeND
from pipelines.augmentation import AugmentedView
from pipelines.hashing import below
from pipelines.loader import PairBatch
from pipelines.pairs import PairData, Share
from runtime.distributed import Process
from runtime.errors import CheckpointError
from runtime.gather import all_gather, chunk_of
from runtime.precision import exact_float32
from training.config import TrainConfig
from training.extraction import training_extractor
from training.view_file import ViewFile, ViewKey

_AT_ONCE = 1 << 16  # images whose features the processes compute before they are written


class FeatureLoader:
    """An endless iterator over one process's share of the plan's pairs, as ``PairLoader``, with the
    features of one view of each image in place of its pixels; hashing picks the view.

    Args:
        data: the pairs.
        features: float16 (V, N, D), those of V views of the N images, on the device.
        share: which part of a step this process takes.
        start_step: the first step.

    Attributes:
        num_damaged: always 0: a damaged image ends the extraction.
    """

    num_damaged = 0

    def __init__(
        self, data: PairData, features: Tensor, share: Share, *, start_step: int = 0
    ) -> None:
        self._data, self._share, self._step = data, share, start_step
        self._num_views = len(features)
        self._features = features.flatten(0, 1)  # (V * N, D)

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        data, share, features = self._data, self._share, self._features
        drawn = data.draw(share.start(self._step), share.count)
        views = below(drawn.pairs.augmentation_keys, self._num_views)
        places = torch.from_numpy(views * len(data.rows) + drawn.pairs.images)
        images = features[places.to(features.device, non_blocking=True)].float()
        batch = PairBatch.of(self._step, images, drawn, data.plan.classes)
        self._step += 1
        return batch


@exact_float32()
def training_features(
    network: ReSeND, config: TrainConfig, data: PairData, process: Process
) -> Tensor:
    """The features of ``train.views`` views of the N images of ``data``, float16 (V, N, D), on the
    device; on a CPU they are memory-mapped. All processes call it.

    They are read from ``train.feature_cache``, or else extracted by all processes and written by
    the first.

    Raises:
        PackError: an image is damaged.
        CheckpointError: a feature is not finite in float16.
        ConfigError: the cache cannot be read or written.
    """
    extractor = training_extractor(network, config, data, process, config.train.precision)
    file = ViewFile(config.train.feature_cache, _key(extractor, config, data))
    found = process.run_long(lambda: process.is_first and file.is_intact())
    if not process.maximum(found):
        _extract(file, _of_views(extractor, config), data.rows)
        process.barrier()  # the first process has written the file
    return process.run_long(file.read).to(process.device)


def _key(extractor: FeatureExtractor, config: TrainConfig, data: PairData) -> ViewKey:
    weights = extractor.network.network.state_dict()
    return ViewKey(
        features=extractor.key(backbone_sha256(config.model.backbone, weights)),
        selected=hashlib.sha256(data.rows.astype("<i8").data).hexdigest(),
        images=len(data.rows),
        views=config.train.views,
        augment=config.augment if config.train.views > 1 else None,
    )


def _of_views(extractor: FeatureExtractor, config: TrainConfig) -> list[FeatureExtractor]:
    """The extractors of the views."""
    if config.train.views == 1:
        return [extractor]
    views = [AugmentedView(config.augment, number) for number in range(config.train.views)]
    return [replace(extractor, config=replace(extractor.config, view=view)) for view in views]


def _extract(file: ViewFile, extractors: list[FeatureExtractor], rows: np.ndarray) -> None:
    """Write the features of ``rows`` (N,) that each of the extractors gives."""
    process = extractors[0].process
    with contextlib.ExitStack() as stack:
        append = stack.enter_context(file.writing()) if process.is_first else None
        for extractor in extractors:
            for start in range(0, len(rows), _AT_ONCE):
                some = rows[start : start + _AT_ONCE]
                chunk = chunk_of(len(some), process)
                values = all_gather(extractor.run(some[chunk.slice]), chunk, process).half()
                _check_finite(values, extractor, some)
                if append is not None:
                    append(values.cpu())


def _check_finite(values: Tensor, extractor: FeatureExtractor, rows: np.ndarray) -> None:
    broken = ~torch.isfinite(values).all(dim=1)
    if broken.any():
        first = rows[[int(broken.int().argmax())]]
        raise CheckpointError(
            f"the backbone gives features for {int(broken.sum())} of {len(rows)} images that are "
            f"not finite in float16, first {extractor.pack.keys(first)[0]}; start it from other "
            "weights, or set train.backbone to trained"
        )
