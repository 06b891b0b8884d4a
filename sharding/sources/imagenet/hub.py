"""ImageNet as Hugging Face has it: five archives of images whose names state the synset, Parquet
files, and the WebDataset shards of `imagenet-1k-wds`. Labels are those of the sorted synsets."""

import json
import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from runtime.errors import PackError
from sharding.sources.containers.archives import Member, members
from sharding.sources.containers.container import Container, ContainerReader
from sharding.sources.containers.gzip_archives import GzipReader, GzipScan
from sharding.sources.containers.parquet_images import ParquetReader, rows
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.imagenet.choice import Choice, image_name
from sharding.sources.imagenet.hub_files import find_files, hub_files
from sharding.sources.imagenet.synsets import ILSVRC2012

NUM_TRAIN_ARCHIVES = 5
_TAR_GZ = re.compile(r"(?P<split>train|val|test)_images(?:_(?P<number>\d))?\.tar\.gz")
_PARQUET = re.compile(
    r"(?P<split>train|val|test)(?:idation)?-(?P<number>\d{5})-of-(?P<count>\d{5})"
    r"(?:-[0-9a-f]+)?\.parquet"
)
_SHARD = re.compile(r"imagenet1k-(?P<split>train|val|test)(?:idation)?-(?P<number>\d+)\.tar")
_IMAGE = "image"  # the column
_IMAGES = (".jpg", ".jpeg", ".png", ".webp")
_MAX_LABEL = 2**16  # bytes of a label, or of the JSON that has it


def find_archives(root: Path) -> str:
    """What is there of Hugging Face's archives in ``root`` or its folder `data`."""
    return _counted(find_files(root, _TAR_GZ), ".tar.gz archives of images")


def find_parquet(root: Path) -> str:
    """What is there of Parquet files in ``root`` or its folder `data`."""
    return _counted(find_files(root, _PARQUET), "Parquet files")


def find_shards(root: Path) -> str:
    """What is there of WebDataset shards in ``root`` or its folder `data`."""
    return _counted(find_files(root, _SHARD), "WebDataset shards")


def archives(root: Path, choice: Choice) -> Dataset:
    """The data set of Hugging Face's archives; in the archives' order, as they cannot be read
    in another one.

    Raises:
        PackError: an archive is missing or damaged, or holds something else.
    """
    found = hub_files(root, _TAR_GZ, NUM_TRAIN_ARCHIVES)
    labels = choice.labels(ILSVRC2012, root)
    scan = GzipScan(found.containers)

    def samples() -> Iterator[Sample]:
        for number, (name, offset, size) in scan.members():
            container, path = found.containers[number], PurePosixPath(name)
            image = image_name(path.stem)
            if image is None or image.synset not in ILSVRC2012:
                raise PackError(
                    f"{container.path} holds {name!r}; expected names with a synset, like "
                    "n01440764_10026_n01440764.JPEG"
                )
            if image.synset in labels:
                source = found.source(number, image.synset, f"{image.image}{path.suffix}")
                yield found.sample(number, source, size, labels[image.synset], offset)

    return choice.dataset(
        labels,
        samples,
        GzipReader(found.containers),
        validation=bool(found.val),
        notes=found.notes,
        prepare=scan.keep,
    )


def parquet(root: Path, choice: Choice) -> Dataset:
    """The data set of Parquet files with the columns `image` and `label`, in the files' order.

    Raises:
        PackError: a file is missing or damaged, or a label is none of ImageNet's.
    """
    found = hub_files(root, _PARQUET)
    labels = choice.labels(ILSVRC2012, root)

    def samples() -> Iterator[Sample]:
        for number, container in enumerate(found.containers):
            for row in rows(container, _IMAGE, ["label"]):
                title = f"{container.path}, row {row.number}"
                path = PurePosixPath(row.path or "")
                image = image_name(path.stem)
                synset = _synset(row.values[0], image and image.synset, title)
                name = f"{image.image}{path.suffix}" if image else _numbered(container, row.number)
                if synset in labels:
                    source = found.source(number, synset, name)
                    yield found.sample(number, source, row.size, labels[synset], row.number)

    return choice.dataset(
        labels,
        samples,
        ParquetReader(found.containers, _IMAGE),
        validation=bool(found.val),
        notes=found.notes,
    )


def shards(root: Path, choice: Choice) -> Dataset:
    """The data set of WebDataset shards with the members `<key>.jpg` and `<key>.cls`, or
    `<key>.json` with a `label`.

    Raises:
        PackError: a shard is missing or damaged, or a sample has no label or none of ImageNet's.
    """
    found = hub_files(root, _SHARD)
    labels = choice.labels(ILSVRC2012, root)

    def samples() -> Iterator[Sample]:
        for number, container in enumerate(found.containers):
            for key, image, label in _labeled(container):
                named = image_name(PurePosixPath(key).name)
                synset = _synset(label, named and named.synset, f"{container.path}, {key}")
                name = f"{named.image}.JPEG" if named else PurePosixPath(image.name).name
                if synset in labels:
                    source = found.source(number, synset, name)
                    yield found.sample(number, source, image.size, labels[synset], image.offset)

    return choice.dataset(
        labels,
        samples,
        ContainerReader(found.containers),
        validation=bool(found.val),
        shuffled=True,
        notes=found.notes,
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count else ""


def _numbered(container: Container, row: int) -> str:
    return f"{Path(container.path).stem}-{row:06d}"


def _synset(label: object, named: str | None, title: str) -> str:
    """The synset of a ``label``, an int, which has to be the ``named`` one where there is one."""
    if type(label) is not int or not 0 <= label < len(ILSVRC2012):
        raise PackError(
            f"{title}: label {label!r} is none of 0 to {len(ILSVRC2012) - 1}; get it again"
        )
    synset = ILSVRC2012[label]
    if named not in (None, synset):
        raise PackError(
            f"{title}: label {label} is that of {synset}, but the image's name says {named}; "
            "the labels are not in the order of the sorted synsets"
        )
    return synset


def _labeled(container: Container) -> Iterator[tuple[str, Member, object]]:
    """Key, image and label of each sample of a WebDataset shard."""
    with container.open() as file:
        for key, group in groupby(members(file, container.path), _key):
            parts: dict[str, Member] = {}
            for member in group:
                extension = member.name.removeprefix(key).lower()
                if extension in parts:
                    raise PackError(f"{container.path} holds {member.name!r} twice; get it again")
                parts[extension] = member
            yield key, *_image_and_label(container, file.fileno(), key, parts)
        container.check(file)


def _key(member: Member) -> str:
    """The name of a WebDataset member up to the first dot of its last part."""
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _image_and_label(
    container: Container, descriptor: int, key: str, parts: dict[str, Member]
) -> tuple[Member, object]:
    images = [parts[extension] for extension in _IMAGES if extension in parts]
    label = parts.get(".cls") or parts.get(".json")
    if len(images) != 1 or label is None or label.size > _MAX_LABEL:
        raise PackError(
            f"{container.path}: sample {key!r} has {', '.join(parts)}; expected one image and a "
            "label, .cls or .json"
        )
    try:
        stated = json.loads(os.pread(descriptor, label.size, label.offset))
    except (ValueError, RecursionError):
        stated = None
    return images[0], stated.get("label") if isinstance(stated, dict) else stated
