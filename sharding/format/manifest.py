"""A pack's table of contents, `manifest.json`: written last, so that its presence means "whole"."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import PackError
from sharding.format.files import write_atomically

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its file, its number of samples, its bytes on disk and their sha256 (hex)."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a pack holds.

    Attributes:
        dataset: name of the data set, e.g. ``pacs``.
        classes: names in label order.
        domains: names, in the order of the index's ``domain`` column; ``("default",)`` without any.
        splits: names, in the order of the index's ``split`` column; ``("all",)`` without any.
        options: what the packing depended on beside the images (shard size, seed, …).
        samples: number of images packed.
        bytes: bytes of all shards.
        rejects: number of source files that were not packed (see ``rejects.jsonl``).
        shards: in order; a shard's position is the index's ``shard`` column.
    """

    dataset: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    options: dict[str, Any]
    samples: int
    bytes: int
    rejects: int
    shards: tuple[ShardInfo, ...]
    schema_version: int = SCHEMA_VERSION

    @staticmethod
    def load(pack: Path) -> "Manifest":
        """Read the manifest of the folder ``pack``.

        Raises:
            PackError: there is no manifest, it is damaged, or it is of another schema version.
        """
        path = Path(pack) / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise PackError(
                f"{pack} is no finished pack (no readable {FILE_NAME}); "
                f"run (or run again) `python -m sharding pack DATASET --root TREE --out {pack}`"
            ) from error
        try:
            fields = json.loads(text)
            version = fields["schema_version"]
            if version != SCHEMA_VERSION:
                raise PackError(
                    f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "pack the tree again"
                )
            for name in ("classes", "domains", "splits"):
                fields[name] = tuple(fields[name])
            fields["shards"] = tuple(ShardInfo(**shard) for shard in fields["shards"])
            return Manifest(**fields)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise PackError(f"{path} is damaged ({error}); pack the tree again") from error

    def save(self, pack: Path) -> None:
        """Write the manifest into the folder ``pack`` under a temporary name, then rename it."""
        write_atomically(Path(pack) / FILE_NAME, json.dumps(asdict(self), indent=1).encode())

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the canonical JSON: equal for equal packs, whoever packed them."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
