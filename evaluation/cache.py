"""Features kept on disk, found again only by what made them."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from runtime.errors import ConfigError


@dataclass(frozen=True)
class FeatureKey:
    """All that a feature depends on beside its sample.

    Attributes:
        backbone: sha256 of the backbone's name and weights.
        pack: fingerprint of the pack.
        transform: how an image becomes the backbone's input.
        precision: type of the backbone's arithmetic.
    """

    backbone: str
    pack: str
    transform: str
    precision: str

    @property
    def text(self) -> str:
        return json.dumps(self.__dict__, sort_keys=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class FeatureCache:
    """A folder with one file a key, ``<sha256>.safetensors``, that grows by the samples asked for.

    A file holds rows of the pack's index and their features, and repeats its key inside.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: FeatureKey, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """What is stored of ``rows``, ascending int64 (n,): found, bool (n,), and the features
        (number found, D) of those. A file that is damaged or of another key counts as absent."""
        stored_rows, stored = self._read(key)
        found = np.isin(rows, stored_rows)
        return found, stored[torch.from_numpy(np.searchsorted(stored_rows, rows[found]))]

    def store(self, key: FeatureKey, rows: np.ndarray, features: Tensor) -> None:
        """Add the features (n, D) of ``rows``, ascending int64 (n,), to those stored.

        Raises:
            ConfigError: the folder cannot be written.
        """
        stored_rows, stored = self._read(key)
        kept = ~np.isin(stored_rows, rows)
        if kept.any():
            rows = np.concatenate((stored_rows[kept], rows))
            features = torch.cat((stored[torch.from_numpy(kept)], features))
        order = np.argsort(rows)
        tensors = {
            "rows": torch.from_numpy(rows[order]),
            "features": features[torch.from_numpy(order)].contiguous(),
        }
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, metadata={"key": key.text})
            temporary.rename(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"cannot write the feature cache {path}: {error}; "
                "give another folder with --cache, or --no-cache"
            ) from error

    def _read(self, key: FeatureKey) -> tuple[np.ndarray, Tensor]:
        try:
            with safe_open(self._path(key), framework="pt") as file:
                if (file.metadata() or {}).get("key") == key.text:
                    return file.get_tensor("rows").numpy(), file.get_tensor("features")
        except (OSError, SafetensorError):
            pass
        return np.zeros(0, dtype=np.int64), torch.zeros(0, 0)

    def _path(self, key: FeatureKey) -> Path:
        return self._folder / f"{key.sha256}.safetensors"
