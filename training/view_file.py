"""The features of several views of the training images in one memory-mapped file."""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from evaluation.cache import FeatureKey
from pipelines.config import AugmentConfig
from runtime.errors import ConfigError, first_line
from runtime.files import atomic_file, open_regular


@dataclass(frozen=True)
class ViewKey:
    """All that the features depend on.

    Attributes:
        features: on what those of the evaluation's view depend.
        selected: sha256 of the N rows of the pack.
        images: N.
        views: V, how many views of each image.
        augment: how they are augmented; None for the evaluation's view.
    """

    features: FeatureKey
    selected: str
    images: int
    views: int
    augment: AugmentConfig | None

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(V, N, D)."""
        return self.views, self.images, self.features.width

    @property
    def num_bytes(self) -> int:
        """Bytes of the features, float16."""
        views, images, width = self.shape
        return 2 * views * images * width


class ViewFile:
    """``<sha256 of the key>.views.safetensors``: features, float16 (V, N, D), which are written in
    this order and never held in memory together; metadata hold the key and the sha256 of the
    features.

    Args:
        folder: that of the feature cache.
        key: of the features.
    """

    def __init__(self, folder: Path, key: ViewKey) -> None:
        self._key = key
        name = hashlib.sha256(key.text.encode()).hexdigest()
        self.path = folder / f"{name}.views.safetensors"

    def is_intact(self) -> bool:
        """Whether the features are there; a file that does not match is reported in one line."""
        try:
            values, sha256 = self._open()
            if hashlib.sha256(values.numpy().data).hexdigest() != sha256:
                raise ValueError("its content does not have the sha256 in its metadata")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError) as error:
            line = f"ignored: {self.path}: {first_line(error)}; its features are recomputed"
            print(line, file=sys.stderr, flush=True)
            return False
        return True

    def read(self) -> Tensor:
        """The features, float16 (V, N, D), memory-mapped; their content is not verified.

        Raises:
            ConfigError: they cannot be read.
        """
        try:
            return self._open()[0]
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot read the features {self.path} that process 0 wrote: {first_line(error)}; "
                "set train.feature_cache to a folder that all nodes share"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[Tensor], None]]:
        """A function that appends features, float16 (n, D), in the order of (V, N); the file
        appears once all are written.

        Raises:
            ConfigError: it cannot be written.
        """
        digest = hashlib.sha256()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            if free < self._key.num_bytes:
                raise OSError(f"{self._key.num_bytes:,} bytes are needed, {free:,} are free")
            with atomic_file(self.path) as file:
                file.write(self._header("0" * 64))

                def append(values: Tensor) -> None:
                    content = values.contiguous().numpy().data
                    digest.update(content)
                    file.write(content)

                yield append
                file.seek(0)
                file.write(self._header(digest.hexdigest()))
        except OSError as error:
            raise ConfigError(
                f"cannot write the features {self.path}: {first_line(error)}; set "
                "train.feature_cache to another folder"
            ) from error

    def _header(self, sha256: str) -> bytes:
        """That of a safetensors file; its length does not depend on the digits of ``sha256``."""
        tensor = {
            "dtype": "F16",
            "shape": self._key.shape,
            "data_offsets": (0, self._key.num_bytes),
        }
        metadata = {"key": self._key.text, "sha256": sha256}
        text = json.dumps({"__metadata__": metadata, "features": tensor}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def _open(self) -> tuple[Tensor, str]:
        """The features and the sha256 that they should have; OSError or ValueError if the file is
        not one of this key."""
        expected = len(self._header("0" * 64)) + self._key.num_bytes
        open_regular(self.path, max_bytes=expected).close()
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if set(file.keys()) != {"features"} or metadata.get("key") != self._key.text:
                    raise ValueError("it does not hold these features")
                values = file.get_tensor("features")
        except SafetensorError as error:
            raise ValueError(first_line(error)) from error
        if str(values.dtype) != "torch.float16" or values.shape != self._key.shape:
            raise ValueError(f"its features are not float16 {self._key.shape}")
        return values, metadata.get("sha256", "")
