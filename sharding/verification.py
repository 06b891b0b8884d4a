"""Reading a pack again: is each byte what the manifest and the index say? And mending it."""

import hashlib
import mmap
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runtime.errors import PackError
from sharding.format import tar
from sharding.format.index import Index, read_strings
from sharding.format.manifest import Manifest, ShardInfo
from sharding.images import ImageOptions, Rejected, pack_image
from sharding.listing import write_listing
from sharding.session import LISTING, WORK, locked
from sharding.shard import ShardTask
from sharding.shard_plan import PackSpec
from sharding.sources.dataset import Dataset
from sharding.workers import processes, submit


@dataclass(frozen=True)
class Fault:
    """What is wrong in shard ``shard``, in words."""

    shard: int
    text: str


@dataclass(frozen=True)
class _Expected:
    """What manifest and index say of one shard of n samples; arrays and lists of n."""

    info: ShardInfo
    keys: list[str]
    sources: list[str]
    offset: np.ndarray
    size: np.ndarray
    crc32: np.ndarray
    label: np.ndarray


def verify(pack: Path, *, decode: bool = False, workers: int = 1) -> Iterator[Fault]:
    """Compare every shard with the manifest, every sample with the index (name, label, bytes), and
    every DALI index with both; with ``decode``, decode every image as well.

    Yields a fault for each shard, index or sample that is missing, cut short or changed.

    Raises:
        PackError: there is no readable manifest or index, or a worker died.
    """
    manifest, index = Manifest.load(pack), Index.load(pack)
    with (
        processes(workers) as pool,
        tqdm(total=manifest.bytes, unit="B", unit_scale=True, disable=None) as bar,
    ):
        check = partial(_shard_faults, pack, decode)
        for number, faults in enumerate(submit(pool, check, _expected(pack, manifest, index))):
            bar.update(manifest.shards[number].bytes)
            yield from (Fault(number, text) for text in faults.result())


def repair(pack: Path, dataset: Dataset, shards: list[int]) -> None:
    """Write the ``shards`` of ``pack`` again from its tree, ``dataset``.

    Raises:
        PackError: the tree is not the one that was packed, or gives other shards than it gave;
            another process is writing into ``pack``, or the disk is full.
    """
    manifest = Manifest.load(pack)
    spec = PackSpec.of(manifest)
    with locked(pack):
        work = pack / WORK
        shutil.rmtree(work / LISTING, ignore_errors=True)  # of a repair that was killed
        try:
            listing = write_listing(dataset, spec.pack_options(), work / LISTING)
            if listing.plan.spec.listing != spec.listing:
                raise PackError(
                    f"{pack} was made of a tree with other files; give that as --root, or pack "
                    "again"
                )
            task = ShardTask(work, work, dataset.read, spec.image)
            for number in shards:
                if task.write(number).info != manifest.shards[number]:
                    raise PackError(
                        f"the tree gives another {manifest.shards[number].name} than it gave "
                        "(changed files, or another version of Pillow); pack again into a new "
                        "folder"
                    )
                name = Path(manifest.shards[number].name)
                for file in (name, name.with_suffix(".idx")):
                    (work / file).replace(pack / file)
        finally:
            shutil.rmtree(work)


def _expected(pack: Path, manifest: Manifest, index: Index) -> Iterator[_Expected]:
    """Of each shard; its rows stand together in the index."""
    keys, sources = read_strings(pack, "key"), read_strings(pack, "source")
    for number, info in enumerate(manifest.shards):
        start, end = np.searchsorted(index.shard, (number, number + 1)).tolist()
        rows = slice(start, end)
        yield _Expected(
            info,
            keys[rows],
            sources[rows],
            index.offset[rows],
            index.size[rows],
            index.crc32[rows],
            index.label[rows],
        )


def _shard_faults(pack: Path, decode: bool, expected: _Expected) -> list[str]:
    info = expected.info
    try:
        with (pack / info.name).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return [f"{info.name} is missing or empty"]
    with content:
        faults = []
        if len(content) != info.bytes:
            faults.append(f"{info.name} has {len(content)} bytes instead of {info.bytes}")
        lines = [f"v1.2 {len(expected.keys)}"]
        for number, key in enumerate(expected.keys):
            line, fault = _check_sample(content, expected, number, decode)
            lines.append(line)
            if fault:
                faults.append(f"sample {key} ({expected.sources[number]}) {fault}")
        if not faults and hashlib.sha256(content).hexdigest() != info.sha256:
            faults.append(f"{info.name} has changed outside of its images and labels")
    if len(expected.keys) != info.samples:
        faults.append(f"{info.name}: the index has {len(expected.keys)} of {info.samples} samples")
    name = Path(info.name).with_suffix(".idx")
    written = (pack / name).read_text() if (pack / name).exists() else None
    if not faults and written != "\n".join([*lines, ""]):
        faults.append(f"{name} is missing or is not the index of {info.name}")
    return faults


def _check_sample(
    content: mmap.mmap, expected: _Expected, number: int, decode: bool
) -> tuple[str, str | None]:
    """The sample's line of the DALI index, and what is wrong with the sample."""
    key, offset, size = expected.keys[number], *_pair(expected, number)
    image = content[offset : offset + size]
    extension = "png" if image.startswith(b"\x89PNG") else "jpg"
    label = b"%d" % expected.label[number]
    label_offset = tar.label_offset(offset, size)
    line = tar.index_line(key, extension, offset, size, label)
    if zlib.crc32(image) != expected.crc32[number]:
        return line, "is damaged"
    headers = (
        (offset, tar.header(f"{key}.{extension}", size)),
        (label_offset, tar.header(f"{key}.cls", len(label))),
    )
    if any(content[end - tar.BLOCK : end] != header for end, header in headers):
        return line, "has a damaged tar header"
    if content[label_offset : label_offset + len(label)] != label:
        return line, "has another label than the index says"
    if decode:
        try:
            pack_image(image, ImageOptions(max_pixels=2**62))
        except Rejected as error:
            return line, f"does not decode: {error}"
    return line, None


def _pair(expected: _Expected, number: int) -> tuple[int, int]:
    return int(expected.offset[number]), int(expected.size[number])
