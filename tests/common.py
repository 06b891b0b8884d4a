"""What the tests of several packages use: files, PNGs, and the configuration of a tiny run."""

import struct
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TINY_MODEL = {"backbone": "test_convnext3", "embed_dim": 48, "depth": 1, "num_heads": 2}


def tiny_run(pack: Path, **groups: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a training run of six steps on a CPU, with a checkpoint after three.

    Its backbone has no BatchNorm, so that a step does not depend on how it is split over ranks.
    Each of ``groups`` updates the group of that name.
    """
    config = {
        "data": {"pack": str(pack), "num_negatives": 3},
        "input": {"image_size": 32, "num_threads": 1, "device": "cpu"},
        "model": TINY_MODEL,
        "objective": {"name": "bce"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "schedule": {"name": "constant", "warmup": 2},
        "train": {"iterations": 6, "global_batch": 8},
        "checkpoint": {"every": 3},
        "log": {"every": 1, "tensorboard": False},
    }
    return {name: {**group, **groups.pop(name, {})} for name, group in config.items()} | groups


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of each regular file in ``folder``, without those of its folders."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip a bit of the byte at ``position`` of a file; negative positions count from its end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def png(width: int, height: int, rows: bytes, *, interlaced: bool = False) -> bytes:
    """An 8-bit RGB PNG of the size in its header and of ``rows``, each led by its filter type."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND"))
    )


def png_chunk(name: bytes, content: bytes = b"") -> bytes:
    """A chunk of a PNG with its length and its checksum."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
