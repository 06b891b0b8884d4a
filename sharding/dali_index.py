"""Whether DALI's index of each shard is the right one; the manifest has no checksum of it."""

from pathlib import Path

from runtime.errors import first_line
from sharding.format.files import open_regular
from sharding.format.index import Index, key_name
from sharding.format.manifest import Manifest, dali_index_name
from sharding.format.tar import index_line, max_index_bytes

_EXTENSIONS = ("jpg", "png")


def dali_index_problem(pack: Path, manifest: Manifest, index: Index) -> str | None:
    """What is wrong with the DALI indices in the folder ``pack``, by its checked ``index``; None if
    nothing is. Shards are not read, so that an image may be called `.jpg` or `.png`."""
    first = 0
    for info in manifest.shards:
        name, rows = dali_index_name(info.name), index[first : first + info.samples]
        try:
            with open_regular(pack / name) as file:
                content = file.read(max_index_bytes(info.samples) + 1)
        except OSError as error:
            return f"{name} cannot be read: {first_line(error)}"
        if not _is_index(content, rows):
            return f"{name} is not the index of {info.name}"
        first += info.samples
    return None


def _is_index(content: bytes, rows: Index) -> bool:
    """Whether ``content`` is DALI's index of the shard with these ``rows``."""
    title, *lines = content.decode("ascii", "replace").split("\n")
    columns = (rows.key, rows.offset, rows.size, rows.label)
    samples = zip(*(column.tolist() for column in columns), strict=True)
    if title != f"v1.2 {len(rows)}" or not lines or lines.pop() or len(lines) != len(rows):
        return False
    for line, (key, offset, size, label) in zip(lines, samples, strict=True):
        name, text = key_name(key), b"%d" % label
        if all(line != index_line(name, kind, offset, size, text) for kind in _EXTENSIONS):
            return False
    return True
