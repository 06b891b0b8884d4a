"""Backbone features of a pack's images: each once, over all processes, kept on disk."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from nvidia import dali
from torch import Tensor
from tqdm import tqdm

from evaluation.cache import FeatureCache, FeatureKey
from evaluation.trained import Trained
from pipelines.config import Decoding, InputConfig
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from runtime.device import dali_device
from runtime.distributed import Process
from runtime.errors import CheckpointError
from runtime.gather import share_of, together


@dataclass(frozen=True)
class Features:
    """Features of some rows of a pack.

    Attributes:
        rows: int64 (N,), ascending.
        values: float32 (N, D), on the process's device.
        extracted: how many of them were computed; the others were read from the cache.
    """

    rows: np.ndarray
    values: Tensor
    extracted: int

    def of(self, rows: np.ndarray) -> Tensor:
        """The features (n, D) of ``rows``, int64 (n,), each of them one of ours."""
        positions = torch.from_numpy(np.searchsorted(self.rows, rows))
        return self.values[positions.to(self.values.device)]


def extract(
    trained: Trained,
    pack: Pack,
    rows: np.ndarray,
    process: Process,
    config: InputConfig,
    *,
    batch_size: int,
    precision: torch.dtype = torch.float32,
    cache: FeatureCache | None = None,
) -> Features:
    """The features of ``rows``, int64 (N,) ascending; every process returns all of them.

    Args:
        trained: its backbone is used.
        pack: where the images are.
        rows: which images.
        process: this process; each extracts its share.
        config: how images are decoded.
        batch_size: images a batch and a process.
        precision: float32, or bfloat16 for the backbone's arithmetic.
        cache: where features are looked up first and stored afterwards.

    Raises:
        CheckpointError: the backbone gives features that are not finite.
    """
    key = feature_key(trained, pack, config, precision)
    width = trained.network.relation.proj.in_features
    values = torch.zeros(len(rows), width, device=process.device)
    found = _from_cache(cache, key, rows, values, process)
    missing = np.flatnonzero(~found)
    share = share_of(len(missing), process)
    own = run_backbone(
        trained, pack, rows[missing[share.slice]], process, config, batch_size, precision
    )
    computed = together(own, share, process)
    _check_finite(computed, pack, rows[missing])
    values[torch.from_numpy(missing).to(values.device)] = computed
    if cache is not None and process.is_first and len(missing):
        cache.store(key, rows[missing], computed.cpu())
    return Features(rows, values, len(missing))


def feature_key(
    trained: Trained, pack: Pack, config: InputConfig, precision: torch.dtype
) -> FeatureKey:
    """What the features of ``pack`` depend on."""
    transform = (
        f"{trained.network.preprocessing} {config.dtype} on {dali_device(config.device)}, "
        f"DALI {dali.__version__}"
    )
    return FeatureKey(trained.backbone_sha256, pack.manifest.fingerprint, transform, str(precision))


def _from_cache(
    cache: FeatureCache | None, key: FeatureKey, rows: np.ndarray, values: Tensor, process: Process
) -> np.ndarray:
    """Fill ``values`` with what the first process finds in its cache; bool (N,), what is found."""
    flags = torch.zeros(len(rows), dtype=torch.int64, device=process.device)
    if cache is not None and process.is_first:
        found, stored = cache.load(key, rows)
        if found.any():
            flags += torch.from_numpy(found).to(flags.device)
            values[flags.bool()] = stored.to(values.device)
    process.broadcast_(flags)
    if flags.any():
        process.broadcast_(values)
    return flags.bool().cpu().numpy()


def run_backbone(
    trained: Trained,
    pack: Pack,
    rows: np.ndarray,
    process: Process,
    config: InputConfig,
    batch_size: int,
    precision: torch.dtype,
) -> Tensor:
    """Features, float32 (n, D), of ``rows``, int64 (n,), computed by this process alone."""
    width = trained.network.relation.proj.in_features
    values = torch.zeros(len(rows), width, device=process.device)
    if not len(rows):
        return values
    decoding = Decoding(trained.network.preprocessing, config, process.local_rank)
    loader = ImageLoader(pack, rows, decoding, batch_size=batch_size)
    quiet = not (process.is_first and sys.stderr.isatty())
    first = 0
    with (
        tqdm(total=len(rows), desc="features", unit="image", disable=quiet) as bar,
        torch.no_grad(),
        torch.autocast(process.device.type, precision, enabled=precision != torch.float32),
    ):
        for batch in loader:
            features = trained.extractor(batch.images.to(process.device, precision))
            values[first : first + len(features)] = features.float()
            first += len(features)
            bar.update(len(features))
    return values


def _check_finite(values: Tensor, pack: Pack, rows: np.ndarray) -> None:
    broken = ~torch.isfinite(values).all(dim=1)
    if broken.any():
        first = rows[[int(broken.int().argmax())]]
        raise CheckpointError(
            f"the backbone gives NaN or infinite features for {int(broken.sum())} of {len(rows)} "
            f"images, first {pack.keys(first)[0]}; its training has diverged, take an earlier "
            "checkpoint"
        )
