"""A pack's table of contents, `manifest.json`: written last, so that its presence means "complete".

A manifest may come from an untrusted source: its size is checked before it is read, and everything
in it is checked before it is used.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from runtime.errors import PackError, first_line
from runtime.files import write_atomically
from sharding.format import tar
from sharding.format.files import MalformedError, open_regular
from sharding.format.strict_json import (
    Settings,
    exact_keys,
    integer,
    names,
    parse,
    settings,
    sha256,
)

FILE_NAME = "manifest.json"
SCHEMA_VERSIONS = (1, 2)
MAX_BYTES = 32 * 2**20  # 100,000 shards take 17 MB, 100,000 classes 2 to 10 MB
MAX_NAMES = {
    "classes": 2**31 - 1,
    "domains": 2**15 - 1,
    "splits": 2**15 - 1,
}  # types of the index's columns
_MAX_COUNT = 2**50


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its file name, number of samples, size in bytes and sha256 (hex)."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexInfo:
    """The index: its number of rows, and the sha256 (hex) of its file."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a pack holds.

    Attributes:
        dataset: name of the data set, e.g. ``pacs``.
        classes: names in label order.
        domains: names, in the order of the index's ``domain`` column; ``("default",)`` if none.
        splits: names, in the order of the index's ``split`` column; ``("all",)`` if none.
        options: what determined the pack besides the images (shard size, seed, …).
        samples: number of images packed.
        bytes: total size of the shards.
        rejects: number of source files that were not packed (see ``rejects.jsonl``).
        shards: in order; the index's ``shard`` column counts them from 0.
        index: None in a pack of schema version 1.
        rejects_sha256: of ``rejects.jsonl`` (hex); None in a pack of schema version 1.
    """

    dataset: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    options: Settings
    samples: int
    bytes: int
    rejects: int
    shards: tuple[ShardInfo, ...]
    index: IndexInfo | None = None
    rejects_sha256: str | None = None

    @staticmethod
    def load(pack: Path) -> "Manifest":
        """Read the manifest of the folder ``pack`` and check everything that does not need other
        files: types, counts and sums, unique names, plain file names for the shards, and the
        fingerprint.

        Raises:
            PackError: there is no manifest, it is damaged, or its schema version is unknown.
        """
        path = Path(pack) / FILE_NAME
        try:
            with open_regular(path) as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise PackError(
                f"{pack} is not a complete pack (no readable {FILE_NAME}: {error.strerror}); "
                f"run or rerun `python -m sharding pack DATASET --root TREE --out {pack}`"
            ) from error
        return parse_manifest(content, path)

    def save(self, pack: Path) -> None:
        """Write the manifest into the folder ``pack``, atomically."""
        write_atomically(Path(pack) / FILE_NAME, manifest_content(self))

    @property
    def schema_version(self) -> int:
        """1 for packs made before manifests held checksums of the index and the rejects, else 2."""
        return 1 if self.index is None else 2

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON; equal packs have equal fingerprints."""
        canonical = json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _fields(self) -> dict[str, Any]:
        absent = ("index", "rejects_sha256") if self.index is None else ()
        stated = {name: value for name, value in asdict(self).items() if name not in absent}
        return {**stated, "schema_version": self.schema_version}


def parse_manifest(content: bytes, origin: object) -> Manifest:
    """The manifest with this ``content``, checked as ``Manifest.load`` does; ``origin`` is where it
    was read, for the message.

    Raises:
        PackError: it is damaged, or its schema version is unknown.
    """
    try:
        if len(content) > MAX_BYTES:
            raise MalformedError(f"it is larger than {MAX_BYTES} bytes")
        return _parse(parse(content))
    except MalformedError as error:
        raise PackError(f"{origin} is damaged: {first_line(error)}; pack the tree again") from error


def manifest_content(manifest: Manifest) -> bytes:
    """The content of the manifest's file."""
    stated = manifest._fields()
    if manifest.index is not None:
        stated["fingerprint"] = manifest.fingerprint
    return json.dumps(stated, indent=1).encode()


def shard_name(number: int) -> str:
    """File name of shard ``number``."""
    return f"shard-{number:06d}.tar"


def dali_index_name(shard: str) -> str:
    """Name of the DALI index of the ``shard`` of that file name."""
    return shard.removesuffix("tar") + "idx"


def _parse(stated: dict[str, Any]) -> Manifest:
    version = stated.get("schema_version")
    if type(version) is not int or version not in SCHEMA_VERSIONS:
        raise MalformedError(f"its schema_version is {version!r:.40}, this program reads 1 and 2")
    expected = {field.name for field in fields(Manifest)} | {"schema_version"}
    expected |= {"fingerprint"} if version == 2 else set()
    expected -= {"index", "rejects_sha256"} if version == 1 else set()
    exact_keys(stated, expected, "it")
    (dataset,) = names([stated["dataset"]], "dataset", 1)
    if not isinstance(stated["shards"], list) or not stated["shards"]:
        raise MalformedError("shards is not a list, or it is empty")
    manifest = Manifest(
        dataset=dataset,
        **{field: names(stated[field], field, most) for field, most in MAX_NAMES.items()},
        options=settings(stated["options"], "options"),
        samples=integer(stated["samples"], "samples", 1, _MAX_COUNT),
        bytes=integer(stated["bytes"], "bytes", 1, _MAX_COUNT),
        rejects=integer(stated["rejects"], "rejects", 0, _MAX_COUNT),
        shards=tuple(_shards(stated["shards"])),
        index=_index(stated["index"]) if version == 2 else None,
        rejects_sha256=sha256(stated["rejects_sha256"], "rejects_sha256") if version == 2 else None,
    )
    _check_sums(manifest)
    if version == 2 and stated["fingerprint"] != manifest.fingerprint:
        raise MalformedError("its fingerprint does not match its content")
    return manifest


def _shards(stated: list[Any]) -> Iterator[ShardInfo]:
    for number, shard in enumerate(stated):
        where = f"shard {number}"
        exact_keys(shard, {field.name for field in fields(ShardInfo)}, where)
        if shard["name"] != shard_name(number):
            raise MalformedError(f"the name of {where} is not {shard_name(number)}")
        info = ShardInfo(
            name=shard["name"],
            samples=integer(shard["samples"], f"samples of {where}", 0, _MAX_COUNT),
            bytes=integer(shard["bytes"], f"bytes of {where}", tar.RECORD, _MAX_COUNT),
            sha256=sha256(shard["sha256"], f"sha256 of {where}"),
        )
        if info.samples * tar.sample_bytes(1) > info.bytes:
            raise MalformedError(f"{where} is too small for {info.samples} samples")
        yield info


def _index(stated: Any) -> IndexInfo:
    exact_keys(stated, {field.name for field in fields(IndexInfo)}, "index")
    rows = integer(stated["rows"], "rows of the index", 1, _MAX_COUNT)
    return IndexInfo(rows, sha256(stated["sha256"], "sha256 of the index"))


def _check_sums(manifest: Manifest) -> None:
    for total in ("samples", "bytes"):
        found = sum(getattr(shard, total) for shard in manifest.shards)
        if found != getattr(manifest, total):
            raise MalformedError(f"{total} is {getattr(manifest, total)}, its shards have {found}")
    if manifest.index and manifest.index.rows != manifest.samples:
        raise MalformedError(
            f"the index has {manifest.index.rows} rows for {manifest.samples} samples"
        )
