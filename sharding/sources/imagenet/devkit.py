"""The ground truth of ImageNet's validation images, from the development kit of ILSVRC 2012.

The kit numbers the synsets by an ID of its own, which is not their order by name; `data/meta.mat`
says which synset an ID is, `data/ILSVRC2012_validation_ground_truth.txt` has one ID per image.
"""

import gzip
import io
import zlib
from pathlib import Path

from runtime.errors import PackError, first_line
from sharding.sources.containers.archives import members
from sharding.sources.containers.container import Container
from sharding.sources.imagenet.choice import SYNSET
from sharding.sources.matlab import records

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
FOLDER = "ILSVRC2012_devkit_t12"
_META = "data/meta.mat"
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_MAX_ARCHIVE = 64 * 2**20  # bytes, unpacked; the published one has 4 MB
_MAX_FILE = 8 * 2**20
_FIELDS = {"ILSVRC2012_ID": int, "WNID": str, "num_children": int}
_AGAIN = "get the published development kit again"


def find(root: Path) -> Path | None:
    """The development kit in ``root``, unpacked or not."""
    places = (root / FOLDER, root, root / ARCHIVE)
    return next((place for place in places if place.is_file() or (place / _TRUTH).exists()), None)


def ground_truth(kit: Path) -> list[str]:
    """The synset of each validation image, in the order of their numbers.

    Raises:
        PackError: the kit cannot be read, is damaged, or has an ID that no synset has.
    """
    content = _of_archive(kit) if kit.is_file() else _of_folder(kit)
    synset_of = _synsets(content[_META], kit)
    lines = content[_TRUTH].decode("ascii", "replace").splitlines()
    truth = [synset_of.get(line.strip()) for line in lines]
    if not truth or None in truth:
        number = truth.index(None) + 1 if truth else 1
        raise PackError(
            f"{_TRUTH} in {kit}, line {number}: expected an ID from 1 to {len(synset_of)}; {_AGAIN}"
        )
    return [synset for synset in truth if synset]


def _of_folder(kit: Path) -> dict[str, bytes]:
    content = {}
    for name in (_META, _TRUTH):
        container = Container.at(kit / name)
        with container.open() as file:
            content[name] = _limited(file.read(_MAX_FILE + 1), _MAX_FILE, container.path)
    return content


def _of_archive(kit: Path) -> dict[str, bytes]:
    try:
        with Container.at(kit).open() as file, gzip.open(file) as inflated:
            unpacked = _limited(inflated.read(_MAX_ARCHIVE + 1), _MAX_ARCHIVE, str(kit))
    except (OSError, EOFError, zlib.error) as error:
        raise PackError(f"{kit} is truncated or damaged: {first_line(error)}; {_AGAIN}") from error
    content = {}
    for name, offset, size in members(io.BytesIO(unpacked), str(kit)):
        for wanted in (_META, _TRUTH):
            if name.endswith(f"/{wanted}"):
                content[wanted] = _limited(unpacked[offset : offset + size], _MAX_FILE, name)
    if missing := {_META, _TRUTH} - content.keys():
        raise PackError(f"{kit} lacks {min(missing)}; {_AGAIN}")
    return content


def _limited(content: bytes, most: int, title: str) -> bytes:
    if len(content) > most:
        raise PackError(f"{title} has more than {most:,} bytes; {_AGAIN}")
    return content


def _synsets(meta: bytes, kit: Path) -> dict[str, str]:
    """The synset of each ID, both as text; only of those that have images, the leaves."""
    try:
        rows = records(meta, "synsets", _FIELDS)
    except ValueError as error:
        raise PackError(f"{_META} in {kit} is damaged: {first_line(error)}; {_AGAIN}") from error
    synset_of = {str(number): synset for number, synset, children in rows if children == 0}
    expected = {str(number) for number in range(1, len(synset_of) + 1)}
    valid = all(SYNSET.fullmatch(synset) for synset in synset_of.values())
    if set(synset_of) != expected or not valid or len(set(synset_of.values())) != len(synset_of):
        raise PackError(
            f"{_META} in {kit} does not number its synsets from 1, one by one; {_AGAIN}"
        )
    return synset_of
