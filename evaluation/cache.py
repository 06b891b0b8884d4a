"""On-disk feature cache, keyed by everything a feature depends on and verified on every read."""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from evaluation.features import Features
from runtime.errors import ConfigError, first_line
from runtime.files import open_regular, write_atomically

_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class FeatureKey:
    """All that a feature depends on besides its sample, and the shape of what is stored.

    Attributes:
        backbone: sha256 of the backbone's name and weights.
        pack: fingerprint of the pack.
        index: sha256 of the pack's index, with the checksums that the images had when read.
        transform: how an image becomes the backbone's input.
        precision: type of the backbone's arithmetic.
        rows: number of rows of the pack's index.
        width: D, the width of a feature.
    """

    backbone: str
    pack: str
    index: str
    transform: str
    precision: str
    rows: int
    width: int

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class FeatureCache:
    """The features of a backbone on disk: a folder with one file per key, ``<sha256>.safetensors``.

    A file holds rows of a pack's index and their features, and grows as more rows are stored; its
    metadata hold the key and the sha256 of the content. A file that does not match is reported in
    one line and treated as absent.

    Args:
        folder: may hold features of other backbones as well.
        backbone: sha256 of the backbone's name and weights.
    """

    def __init__(self, folder: Path, backbone: str) -> None:
        self._folder = folder
        self.backbone = backbone

    def prepare(self) -> None:
        """Create the folder; ConfigError where nothing can be written to it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                file.write(bytes(4096))
        except OSError as error:
            raise ConfigError(
                f"cannot write the feature cache {self._folder}: {first_line(error)}; "
                "choose another folder with --cache, or --no-cache"
            ) from error

    def load(self, key: FeatureKey, rows: np.ndarray) -> Features:
        """What is stored of ``rows``, ascending int64 (n,)."""
        try:
            return self._read(key).among(rows)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            _say(f"ignored: {self._path(key)}: {first_line(error)}; its features are recomputed")
        return _nothing(key)

    def store(self, key: FeatureKey, features: Features) -> None:
        """Add features to the stored ones; several processes may do so at the same time.

        A failure is reported in one line and is no error: the features are right all the same.
        """
        path = self._path(key)
        try:
            with self._locked(path.with_suffix(".lock")):
                for leftover in self._folder.glob(f".{path.name}.*.tmp"):  # of a killed process
                    leftover.unlink()
                with contextlib.suppress(OSError, ValueError):  # load has reported it
                    features = self._read(key).updated(features)
                tensors = {"rows": torch.from_numpy(features.rows), "features": features.values}
                metadata = {"key": key.text, "sha256": _sha256(key, features)}
                write_atomically(path, save(tensors, metadata))
        except OSError as error:
            _say(f"warning: the features are not kept, cannot write {path}: {first_line(error)}")

    def _read(self, key: FeatureKey) -> Features:
        """What the key's file holds; OSError or ValueError where that cannot be used."""
        path = self._path(key)
        largest = _HEADER_BYTES + key.rows * (8 + 4 * key.width)
        with open_regular(path, max_bytes=largest):
            try:
                with safe_open(path, framework="pt") as file:
                    metadata = file.metadata() or {}
                    names = set(file.keys())
                    if names != {"rows", "features"} or metadata.get("key") != key.text:
                        raise ValueError("it does not hold these features")
                    rows, values = file.get_tensor("rows"), file.get_tensor("features")
            except SafetensorError as error:
                raise ValueError(first_line(error)) from error
        _check(rows, values, key)
        stored = Features(rows.numpy(), values)
        if _sha256(key, stored) != metadata.get("sha256"):
            raise ValueError("its content does not have the sha256 in its metadata")
        return stored

    def _path(self, key: FeatureKey) -> Path:
        return self._folder / f"{key.sha256}.safetensors"

    @staticmethod
    @contextlib.contextmanager
    def _locked(path: Path) -> Iterator[None]:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        try:
            # On a file system without locks, of two processes one may overwrite the other's rows.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _check(rows: Tensor, values: Tensor, key: FeatureKey) -> None:
    if rows.dtype != torch.int64 or rows.ndim != 1:
        raise ValueError("its rows are not int64 (n,)")
    if values.dtype != torch.float32 or values.shape != (len(rows), key.width):
        raise ValueError(f"its features are not float32 ({len(rows)}, {key.width})")
    inside = bool(((rows >= 0) & (rows < key.rows)).all())
    if not inside or (rows.diff() <= 0).any():
        raise ValueError(f"its rows are not distinct, ascending and below {key.rows}")
    if not torch.isfinite(values).all():
        raise ValueError("its features are not all finite")


def _sha256(key: FeatureKey, features: Features) -> str:
    """sha256 of the key, the rows and the features."""
    digest = hashlib.sha256(key.text.encode())
    digest.update(np.ascontiguousarray(features.rows).data)
    digest.update(features.values.contiguous().numpy().data)
    return digest.hexdigest()


def _nothing(key: FeatureKey) -> Features:
    return Features(np.zeros(0, dtype=np.int64), torch.zeros(0, key.width))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
