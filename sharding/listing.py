"""The listing of a data set, on disk so that a million samples take no memory and workers share it.

Files in its folder: `names` (all sources, concatenated), `records` (one fixed-size record
per sample), `modified` (the sources' modification times), `locations` (where images lie inside
archives) and `plan.json` (the ``ShardPlan``).
"""

import hashlib
import os
import shutil
import socket
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from runtime.errors import PackError
from runtime.files import write_atomically
from sharding.shard_plan import Columns, PackOptions, ShardPlan, make_plan, pack_order
from sharding.sources.dataset import Dataset, Sample

RECORD = np.dtype(
    [
        ("name_end", "<i8"),
        ("size", "<i8"),
        ("label", "<i4"),
        ("domain", "<i2"),
        ("split", "<i2"),
    ]
)
_TIME = np.dtype("<i8")
_LOCATION = np.dtype([("container", "<i4"), ("offset", "<i8")])
_CHUNK = 4096


@dataclass(frozen=True)
class Listing:
    """A listing opened for reading; N samples in S shards."""

    folder: Path
    plan: ShardPlan

    @staticmethod
    def load(folder: Path) -> "Listing":
        """Open the listing in ``folder``; a process that writes many shards reads it only once.

        Raises:
            PackError: its plan is damaged or was written by a different version.
        """
        written = (folder / "plan.json").stat()
        return _load(folder, written.st_ino, written.st_mtime_ns)

    @cached_property
    def records(self) -> np.ndarray:
        """``RECORD`` (N,), memory-mapped."""
        return np.asarray(np.memmap(self.folder / "records", dtype=RECORD, mode="r"))

    @cached_property
    def modified(self) -> np.ndarray:
        """int64 (N,), modification times in ns, memory-mapped."""
        return np.asarray(np.memmap(self.folder / "modified", dtype=_TIME, mode="r"))

    @cached_property
    def locations(self) -> np.ndarray:
        """``_LOCATION`` (N,), memory-mapped."""
        return np.asarray(np.memmap(self.folder / "locations", dtype=_LOCATION, mode="r"))

    @cached_property
    def order(self) -> np.ndarray:
        """int64 (N,), the numbers of the listed samples in packing order."""
        return pack_order(self.records["split"], self.plan.spec.shuffle_seed)

    def shard(self, number: int) -> np.ndarray:
        """int64 (n,), the listed samples of shard ``number``, in the order of the shard."""
        start, end = self.plan.starts[number : number + 2]
        return self.order[start:end]

    def sample(self, number: int) -> Sample:
        """The listed sample ``number``."""
        record = self.records[number]
        size, label, domain, split = (
            int(record[column]) for column in ("size", "label", "domain", "split")
        )
        start = int(self.records["name_end"][number - 1]) if number else 0
        source = os.fsdecode(bytes(self._names[start : int(record["name_end"])]))
        modified, (container, offset) = self.modified[number], self.locations[number]
        return Sample(
            source, size, label, domain, split, int(modified), int(container), int(offset)
        )

    @cached_property
    def _names(self) -> np.ndarray:
        return np.asarray(np.memmap(self.folder / "names", dtype=np.uint8, mode="r"))


@lru_cache(maxsize=2)
def _load(folder: Path, inode: int, mtime_ns: int) -> Listing:
    """Inode and mtime are part of the cache key, so that a rewritten listing is reloaded."""
    try:
        return Listing(folder, ShardPlan.from_json((folder / "plan.json").read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise PackError(
            f"the listing in {folder} is damaged or of a different version; remove "
            f"{folder.parent.parent} and pack again"
        ) from error


def write_listing(dataset: Dataset, options: PackOptions, folder: Path) -> Listing:
    """List ``dataset``, cut it into shards, and store both in ``folder``; if it already holds a
    listing, both must be the same.

    Raises:
        PackError: the data set has no samples, or ``folder`` holds a listing of a different tree or
            with different options.
    """
    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        plan = _write(dataset, options, temporary)
        write_atomically(temporary / "plan.json", plan.to_json().encode())
        try:
            temporary.rename(folder)
        except OSError as error:
            if not (folder / "plan.json").exists():
                raise
            _expect_same(Listing.load(folder), Listing(temporary, plan), error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Listing(folder, plan)


def _write(dataset: Dataset, options: PackOptions, folder: Path) -> ShardPlan:
    """Write all files but `plan.json`; returns the plan."""
    listing, modified = hashlib.sha256(dataset.variant.encode()), hashlib.sha256()
    samples, name_end = dataset.samples(), 0
    hashes: list[np.ndarray] = []
    with (
        (folder / "names").open("wb") as names,
        (folder / "records").open("wb") as records,
        (folder / "modified").open("wb") as times,
        (folder / "locations").open("wb") as locations,
    ):
        while chunk := list(islice(samples, _CHUNK)):
            encoded = [os.fsencode(sample.source) for sample in chunk]
            block = np.empty(len(chunk), dtype=RECORD)
            block["name_end"] = name_end + np.cumsum([len(name) for name in encoded])
            for column in ("size", "label", "domain", "split"):
                block[column] = [getattr(sample, column) for sample in chunk]
            time = np.array([sample.modified for sample in chunk], dtype=_TIME)
            location = np.array([(s.container, s.offset) for s in chunk], dtype=_LOCATION)
            hashes.append(np.array([hash(name) for name in encoded], dtype="<i8"))
            name_end = int(block["name_end"][-1])
            joined = b"".join(encoded)
            names.write(joined)
            records.write(block.tobytes())
            times.write(time.tobytes())
            locations.write(location.tobytes())
            listing.update(joined)
            listing.update(block.tobytes())
            modified.update(time.tobytes())
    if not name_end:
        raise PackError("the tree holds no images; is --root right?")
    table = np.memmap(folder / "records", dtype=RECORD, mode="r")
    _expect_unique(np.concatenate(hashes), np.asarray(table["name_end"]), folder / "names")
    columns = Columns(np.asarray(table["size"]), np.asarray(table["split"]))
    return make_plan(dataset, options, columns, listing.hexdigest(), modified.hexdigest())


def _expect_unique(hashes: np.ndarray, name_end: np.ndarray, names: Path) -> None:
    """Raise PackError if two of N samples have the same name.

    Args:
        hashes: int64 (N,), of the names.
        name_end: int64 (N,), where each name ends in the file ``names``.
    """
    order = np.argsort(hashes, kind="stable")
    repeated = hashes[order[1:]] == hashes[order[:-1]]
    content = np.memmap(names, dtype=np.uint8, mode="r")
    for first, second in zip(order[:-1][repeated], order[1:][repeated], strict=True):
        pair = [
            bytes(content[name_end[number - 1] if number else 0 : name_end[number]])
            for number in (first, second)
        ]
        if pair[0] == pair[1]:
            raise PackError(
                f"{os.fsdecode(pair[0])!r} is in the data set twice; rename or remove one of them"
            )


def _expect_same(old: Listing, new: Listing, cause: Exception) -> None:
    """Raise PackError, naming what differs, unless both listings give the same pack."""
    pack = old.folder.parent.parent
    remedy = f"choose a different --out, or remove {pack}"
    changes = old.plan.spec.changes(new.plan.spec)
    source = _first_difference(old, new)
    if changes:
        where = f", beginning with {source}" if source else ""
        raise PackError(
            f"{pack} was started with different {', '.join(changes)}{where}; use the original tree "
            f"and options, {remedy}"
        ) from cause
    if source:
        raise PackError(
            f"{source} has changed since {pack} was started, or the tree was copied without its "
            f"times (`cp -a` keeps them); use the original tree, {remedy}"
        ) from cause


def _first_difference(old: Listing, new: Listing) -> str | None:
    """The first source whose name, size, label or time differs between two listings, if any."""
    common = min(len(old.records), len(new.records))
    if (old.plan.spec.listing, old.plan.modified) == (new.plan.spec.listing, new.plan.modified):
        return None
    for number in range(common):
        if old.sample(number) != new.sample(number):
            return new.sample(number).source
    longer = old if len(old.records) > common else new
    return longer.sample(common).source if len(longer.records) > common else None
