"""Verifies every byte of a pack against its manifest and its index."""

import hashlib
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from runtime.errors import PackError
from sharding.format import index as index_file
from sharding.format import rejects as rejects_file
from sharding.format import tar
from sharding.format.files import MalformedError, open_regular
from sharding.format.header import pixel_size
from sharding.format.index import Index, key_name
from sharding.format.manifest import Manifest, ShardInfo, dali_index_name
from sharding.images import ImageOptions, Rejected, pack_image
from sharding.workers import processes, submit


@dataclass(frozen=True)
class Fault:
    """A fault of the file named ``file``, described in ``text``."""

    file: str
    text: str


@dataclass(frozen=True)
class _Task:
    """A shard to check: its entry in the manifest, and its n rows of the index, or None if
    the index is unusable."""

    info: ShardInfo
    rows: Index | None


@dataclass(frozen=True)
class _Finding:
    """A fault and, if a single sample is at fault, the number of that sample within the shard."""

    file: str
    text: str
    sample: int | None = None


def verify(pack: Path, *, decode: bool = False, workers: int = 1) -> Iterator[Fault]:
    """Compare every file of a pack with the manifest, every sample with the index (name, label,
    bytes, size in pixels), and every DALI index with both; with ``decode``, also decode every
    image.

    Yields a fault for each file or sample that is missing, truncated or changed. If a shard is
    intact but differs from the index, the index is at fault.

    Raises:
        PackError: there is no readable manifest, or a worker died.
    """
    manifest = Manifest.load(pack)
    if problem := rejects_file.rejects_problem(pack, manifest):
        yield Fault(rejects_file.FILE_NAME, problem)
    yield from _unexpected_files(pack, manifest)
    index, sources, problems = _read_index(pack, manifest)
    for problem in problems:
        yield Fault(index_file.FILE_NAME, f"{index_file.FILE_NAME} is damaged: {problem}")
    first = np.cumsum([0, *(info.samples for info in manifest.shards)]).tolist()
    tasks = [
        _Task(info, None if index is None else index[start : start + info.samples])
        for info, start in zip(manifest.shards, first, strict=False)
    ]
    with (
        processes(workers) as pool,
        tqdm(total=manifest.bytes, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for task, start, findings in zip(
            tasks, first, submit(pool, partial(_check_shard, pack, decode), tasks), strict=False
        ):
            for finding in findings.result():
                text = finding.text
                if finding.sample is not None:
                    assert index is not None
                    assert sources is not None
                    row = start + finding.sample
                    text = f"sample {key_name(index.key[row])} ({sources[row].as_py()!r}) {text}"
                yield Fault(finding.file, text)
            bar.update(task.info.bytes)


def _unexpected_files(pack: Path, manifest: Manifest) -> Iterator[Fault]:
    known = {info.name for info in manifest.shards}
    known |= {dali_index_name(name) for name in known}
    try:
        names = sorted(os.listdir(pack))
    except OSError as error:
        raise PackError(f"cannot list {pack}: {error.strerror}") from error
    for name in names:
        if name.startswith("shard-") and name not in known:
            yield Fault(name, f"{name!r} is not a file of this pack; remove it")


def _read_index(
    pack: Path, manifest: Manifest
) -> tuple[Index | None, pa.ChunkedArray | None, list[str]]:
    """The index and the sources, or None if they cannot be used, and what is wrong with them."""
    problems = []
    try:
        if not index_file.has_checksum(pack, manifest):
            problems.append("it does not match its checksum")
        index = Index.read(pack, manifest)
        sources = index_file.read_sources(pack, manifest)
    except MalformedError as error:
        return None, None, [*problems, str(error)]
    if unusable := index.problems(manifest):
        return None, None, problems + unusable
    return index, sources, problems


def _check_shard(pack: Path, decode: bool, task: _Task) -> list[_Finding]:
    info, rows = task.info, task.rows
    try:
        with open_regular(pack / info.name) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        missing = f"{info.name} is missing or empty, or it is not a regular file"
        return [_Finding(info.name, missing)]
    with content:
        if len(content) != info.bytes:
            sizes = f"has {len(content)} bytes instead of {info.bytes}"
            found, intact = [_Finding(info.name, f"{info.name} {sizes}")], False
        else:
            found, intact = [], hashlib.sha256(content).hexdigest() == info.sha256
        lines = [f"v1.2 {info.samples}"]
        for number in range(0 if rows is None else len(rows)):
            assert rows is not None
            line, text = _check_sample(content, rows, number)
            lines.append(line)
            if text:
                file_name = index_file.FILE_NAME if intact else info.name
                found.append(_Finding(file_name, text, number))
            elif decode and (problem := _decoding_problem(content, rows, number)):
                found.append(_Finding(info.name, problem, number))
        if not intact and not found:
            where = "" if rows is None else " outside its images and labels"
            found.append(_Finding(info.name, f"{info.name} has changed{where}"))
    name = dali_index_name(info.name)
    indexed = rows is not None and all(finding.file == info.name for finding in found)
    if intact and indexed and not _has_content(pack / name, "\n".join([*lines, ""])):
        found.append(_Finding(name, f"{name} is missing, or it is not the index of {info.name}"))
    return found


def _check_sample(content: mmap.mmap, rows: Index, number: int) -> tuple[str, str | None]:
    """The sample's line of the DALI index, and what is wrong with the sample."""
    key, offset, size = key_name(rows.key[number]), int(rows.offset[number]), int(rows.size[number])
    image = content[offset : offset + size]
    extension = "png" if image.startswith(b"\x89PNG") else "jpg"
    label = b"%d" % rows.label[number]
    label_offset = tar.label_offset(offset, size)
    line = tar.index_line(key, extension, offset, size, label)
    if zlib.crc32(image) != rows.crc32[number]:
        return line, "is damaged: its checksum does not match the index"
    headers = (
        (offset, tar.header(f"{key}.{extension}", size)),
        (label_offset, tar.header(f"{key}.cls", len(label))),
    )
    if any(content[end - tar.BLOCK : end] != header for end, header in headers):
        return line, "has a tar header that does not match the index"
    if content[label_offset : label_offset + len(label)] != label:
        return line, "has a label that does not match the index"
    expected = (rows.width[number], rows.height[number])
    if (found := pixel_size(image)) != expected:
        stated = "no size" if found is None else "{} x {} pixels".format(*found)
        return line, "has {}, the index says {} x {}".format(stated, *expected)
    return line, None


def _decoding_problem(content: mmap.mmap, rows: Index, number: int) -> str | None:
    offset, size = int(rows.offset[number]), int(rows.size[number])
    try:
        pack_image(content[offset : offset + size], ImageOptions(max_pixels=index_file.MAX_PIXELS))
    except Rejected as error:
        return f"does not decode: {error}"
    return None


def _has_content(path: Path, expected: str) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(expected) + 1) == expected.encode()
    except OSError:
        return False
