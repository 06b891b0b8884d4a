"""The listing of a data set on disk, so that a million samples cost no memory and workers share it.

Files in its folder: `names` (all sources, one after the other), `records` (one fixed-size record
a sample) and `plan.json` (what the shards depend on, and where each begins).
"""

import hashlib
import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import PackError
from sharding.format.files import write_atomically
from sharding.format.tar import sample_bytes
from sharding.images import ImageOptions
from sharding.sources.dataset import Dataset

RECORD = np.dtype(
    [
        ("name_end", "<i8"),
        ("size", "<i8"),
        ("label", "<i4"),
        ("domain", "<i2"),
        ("split", "<i2"),
    ]
)
_CHUNK = 4096


@dataclass(frozen=True)
class PackOptions:
    """What the bytes of a pack depend on beside its data set.

    Attributes:
        shard_size: bytes aimed at in a shard; the shards of a pack are about equally large. None
            for a sixteenth of the data set, but at least 16 and at most 512 MB, so that workers and
            readers can share a small data set, too.
        seed: of the global shuffle, where the data set has one.
        image: treatment of each image.
    """

    shard_size: int | None = None
    seed: int = 0
    image: ImageOptions = field(default_factory=ImageOptions)


@dataclass(frozen=True)
class Listing:
    """A listing opened for reading; N samples in S shards.

    Attributes:
        folder: where its files are.
        plan: the contents of ``plan.json``.
    """

    folder: Path
    plan: dict[str, Any]

    @staticmethod
    def load(folder: Path) -> "Listing":
        """Open the listing in ``folder``; a process that works on many shards reads it once."""
        written = (folder / "plan.json").stat()
        return _load(folder, written.st_ino, written.st_mtime_ns)

    @cached_property
    def records(self) -> np.ndarray:
        """``RECORD`` (N,), mapped from disk."""
        return np.asarray(np.memmap(self.folder / "records", dtype=RECORD, mode="r"))

    @cached_property
    def order(self) -> np.ndarray:
        """int64 (N,), the listed sample at each position of the pack."""
        seed = self.plan["shuffle_seed"]
        return _order(len(self.records), seed)

    @property
    def num_shards(self) -> int:
        """S."""
        return len(self.plan["starts"]) - 1

    def shard(self, number: int) -> np.ndarray:
        """int64 (n,), the listed samples of shard ``number`` in their order."""
        start, end = self.plan["starts"][number : number + 2]
        return self.order[start:end]

    def source(self, sample: int) -> str:
        """The name of the listed ``sample``."""
        start = int(self.records["name_end"][sample - 1]) if sample else 0
        return os.fsdecode(bytes(self._names[start : int(self.records["name_end"][sample])]))

    @cached_property
    def _names(self) -> np.ndarray:
        return np.asarray(np.memmap(self.folder / "names", dtype=np.uint8, mode="r"))


@lru_cache(maxsize=2)
def _load(folder: Path, *_: int) -> Listing:
    """The other arguments tell a listing from a later one in the same place."""
    return Listing(folder, json.loads((folder / "plan.json").read_text()))


def write_listing(dataset: Dataset, options: PackOptions, folder: Path) -> Listing:
    """List ``dataset``, cut it into shards, and keep both in ``folder``; if a listing is there, it
    has to be the same.

    Raises:
        PackError: the data set has no samples, or ``folder`` has a listing of another tree or of
            other options.
    """
    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        digest = _write_samples(dataset, temporary)
        plan = _plan(dataset, options, temporary, digest)
        write_atomically(temporary / "plan.json", json.dumps(plan, indent=1).encode())
        try:
            temporary.rename(folder)
        except OSError as error:
            if not (folder / "plan.json").exists():
                raise
            expect_same_plan(json.loads((folder / "plan.json").read_text()), plan, folder, error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Listing(folder, plan)


def expect_same_plan(
    old: dict[str, Any], new: dict[str, Any], where: Path, cause: Exception | None = None
) -> None:
    """Raise PackError, naming what differs, unless both plans give the same pack."""
    differing = [name for name in new if old.get(name) != new[name] and name != "starts"]
    if differing:
        raise PackError(
            f"{where.parent.parent} was begun with other {', '.join(differing)}; give the same "
            "tree and options as then, or choose another --out, or remove the folder"
        ) from cause


def _write_samples(dataset: Dataset, folder: Path) -> str:
    """Write `names` and `records`; returns the sha256 (hex) of both."""
    digest, name_end = hashlib.sha256(), 0
    samples = dataset.samples()
    with (folder / "names").open("wb") as names, (folder / "records").open("wb") as records:
        while chunk := list(islice(samples, _CHUNK)):
            encoded = [os.fsencode(sample.source) for sample in chunk]
            block = np.empty(len(chunk), dtype=RECORD)
            block["name_end"] = name_end + np.cumsum([len(name) for name in encoded])
            for column in ("size", "label", "domain", "split"):
                block[column] = [getattr(sample, column) for sample in chunk]
            name_end = int(block["name_end"][-1])
            joined = b"".join(encoded)
            names.write(joined)
            records.write(block.tobytes())
            digest.update(joined)
            digest.update(block.tobytes())
    return digest.hexdigest()


def _plan(dataset: Dataset, options: PackOptions, folder: Path, digest: str) -> dict[str, Any]:
    samples = (folder / "records").stat().st_size // RECORD.itemsize
    if not samples:
        raise PackError("the tree holds no images; is --root right?")
    sizes = np.memmap(folder / "records", dtype=RECORD, mode="r")["size"]
    shuffle_seed = options.seed if dataset.shuffled else None
    in_order = sample_bytes(sizes[_order(samples, shuffle_seed)])
    shard_size = options.shard_size or _usual_shard_size(int(in_order.sum()))
    return {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "domains": list(dataset.domains),
        "splits": list(dataset.splits),
        "samples": samples,
        "listing": digest,
        "shard_size": shard_size,
        "shuffle_seed": shuffle_seed,
        "image": asdict(options.image),
        "starts": _starts(in_order, shard_size),
    }


def _usual_shard_size(total: int) -> int:
    return min(max(total // 16, 16 * 10**6), 512 * 10**6)


def _starts(sizes: np.ndarray, shard_size: int) -> list[int]:
    """First sample of each shard and the end of the last, so that all are about equally large."""
    ends = np.cumsum(sizes, out=sizes)
    num_shards = min(len(sizes), -(-int(ends[-1]) // shard_size))
    targets = ends[-1] * np.arange(1, num_shards) / num_shards
    starts = [0, *np.searchsorted(ends, targets, side="right").tolist(), len(sizes)]
    return sorted(set(starts))


def _order(samples: int, seed: int | None) -> np.ndarray:
    """int64 (samples,): a shuffle by the hash of (seed, position), or the identity. The hash is
    splitmix64 (Steele et al., 2014), so that no library's version changes the order."""
    if seed is None:
        return np.arange(samples)
    hashed = np.arange(samples, dtype=np.uint64) + np.uint64(1)
    hashed *= np.uint64(0x9E3779B97F4A7C15)
    hashed += np.uint64(seed * 0xD1342543DE82EF95 & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashed ^= hashed >> np.uint64(shift)
        hashed *= np.uint64(factor)
    hashed ^= hashed >> np.uint64(31)
    return np.argsort(hashed, kind="stable")
