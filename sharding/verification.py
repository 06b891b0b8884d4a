"""Reading a pack again: is each byte what the manifest and the index say?"""

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sharding.index import Index, read_strings
from sharding.manifest import Manifest


def verify(pack: Path) -> Iterator[str]:
    """Compare every shard with the manifest, and the samples of one that differs with the index.

    Yields a line for each shard or sample that is missing, cut short or changed.

    Raises:
        PackError: there is no readable manifest or index.
    """
    manifest, index = Manifest.load(pack), Index.load(pack)
    with tqdm(total=manifest.bytes, unit="B", unit_scale=True, disable=None) as bar:
        for number, info in enumerate(manifest.shards):
            path = pack / info.name
            content = path.read_bytes() if path.exists() else None
            bar.update(info.bytes)
            if content is None:
                yield f"{info.name} is missing"
            elif len(content) != info.bytes:
                yield f"{info.name} has {len(content)} bytes instead of {info.bytes}"
            if content is None or hashlib.sha256(content).hexdigest() == info.sha256:
                continue
            damaged = list(_damaged_samples(pack, index, number, content))
            yield from damaged or [f"{info.name}: headers or labels have changed"]


def _damaged_samples(pack: Path, index: Index, number: int, content: bytes) -> Iterator[str]:
    rows = np.flatnonzero(index.shard == number)
    damaged = [
        row
        for row, offset, size, crc32 in zip(
            rows.tolist(),
            index.offset[rows].tolist(),
            index.size[rows].tolist(),
            index.crc32[rows].tolist(),
            strict=True,
        )
        if zlib.crc32(content[offset : offset + size]) != crc32
    ]
    wanted = np.array(damaged, dtype=np.int64)
    for key, source in zip(
        read_strings(pack, "key", wanted), read_strings(pack, "source", wanted), strict=True
    ):
        yield f"sample {key} ({source}) is damaged"
