"""Images of a pack, of files and of folders, read and checked as packing reads and checks them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.damage import DamageCheck
from pipelines.image_stream import EncodedImage, SourceImage, UnreadableImage
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.errors import ConfigError, first_line
from runtime.files import open_regular
from sharding.format.manifest import FILE_NAME
from sharding.images import ImageOptions, Rejected, pack_image
from sharding.sources.files import MAX_BYTES
from sharding.sources.imagefolder import imagefolder
from sharding.sources.tree import has_image_suffix, visible

_OPTIONS = ImageOptions()


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of any format that can be packed."""

    name: str

    def read(self) -> EncodedImage:
        """See ``SourceImage``."""
        try:
            with open_regular(Path(self.name), max_bytes=MAX_BYTES) as file:
                image = pack_image(file.read(), _OPTIONS)
        except (OSError, Rejected) as error:
            raise UnreadableImage(first_line(error)) from error
        return EncodedImage(image.content, image.width, image.height)


@dataclass(frozen=True)
class PackSample:
    """The image in a row of a pack, compared with its checksum."""

    pack: Pack
    row: int

    @property
    def name(self) -> str:
        """The sample's key."""
        return self.pack.keys(np.array([self.row]))[0]

    def read(self) -> EncodedImage:
        """See ``SourceImage``."""
        rows = np.array([self.row])
        (image,) = self.pack.read(rows)
        if DamageCheck(self.pack, check_crc=True).items(rows, [image]):
            raise UnreadableImage(f"damaged; run `python -m sharding verify {self.pack.path}`")
        index = self.pack.index
        return EncodedImage(
            image.tobytes(), int(index.width[self.row]), int(index.height[self.row])
        )


@dataclass(frozen=True)
class ImageSet:
    """Images, and lines that tell the user which files beside them are left out."""

    images: Sequence[SourceImage]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabeledImages:
    """Images of named classes.

    Attributes:
        source: the pack or folder that holds them.
        classes: K names; each class has an image.
        labels: int64 (N,), the classes of the images.
        found: N images.
    """

    source: Path
    classes: tuple[str, ...]
    labels: np.ndarray
    found: ImageSet

    def of_classes(self, names: Sequence[str]) -> "LabeledImages":
        """The images of those of ``names`` that are classes here."""
        known = np.array([name in names for name in self.classes])
        return self._part(np.flatnonzero(known[self.labels]))

    def _part(self, chosen: np.ndarray) -> "LabeledImages":
        """The images at the positions ``chosen``, and only the classes that they are of."""
        present, labels = np.unique(self.labels[chosen], return_inverse=True)
        classes = tuple(self.classes[number] for number in present.tolist())
        images = [self.found.images[position] for position in chosen.tolist()]
        found = ImageSet(images, self.found.notes)
        return LabeledImages(self.source, classes, labels.astype(np.int64), found)

    @classmethod
    def open(cls, path: Path, selection: Selection) -> "LabeledImages":
        """The images of a pack, or of a folder of class folders, as ``python -m sharding pack
        imagefolder`` reads it; ``selection`` is for packs.

        Raises:
            PackError: the pack cannot be opened, or the folder holds no class folders.
            ConfigError: there is no such folder, or it has no image of the selection.
        """
        if is_pack(path):
            pack = Pack(path)
            rows = selection.rows(pack)
            names, labels = pack.manifest.classes, pack.index.label[rows].astype(np.int64)
            found = ImageSet([PackSample(pack, row) for row in rows.tolist()])
        else:
            _check_folder(path, selection)
            dataset = imagefolder(path)
            names, samples = dataset.classes, list(dataset.samples())
            labels = np.array([sample.label for sample in samples], dtype=np.int64)
            files = [ImageFile(f"{path}/{sample.source}") for sample in samples]
            found = ImageSet(files, dataset.notes)
        if not found.images:
            raise ConfigError(f"{path} has no image that is selected")
        return cls(path, names, labels, found)._part(np.arange(len(labels)))


def images_in(path: Path, selection: Selection) -> ImageSet:
    """The images of a pack, or of a folder with folders of any depth; ``selection`` is for packs.

    Raises:
        PackError: the pack cannot be opened.
        ConfigError: there is no such folder, or it has no image of the selection.
    """
    if is_pack(path):
        return LabeledImages.open(path, selection).found
    _check_folder(path, selection)
    return image_files([path])


def image_files(paths: Sequence[Path]) -> ImageSet:
    """The files among ``paths``, and the files with an image's extension in the folders among them
    and in the folders below those, sorted by name.

    Raises:
        ConfigError: a path does not exist, a folder cannot be listed, or a folder has no image.
    """
    images: list[SourceImage] = []
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            found = _below(path)
            images += found.images
            notes += found.notes
        elif os.path.lexists(path):
            images.append(ImageFile(str(path)))
        else:
            raise ConfigError(f"{path} does not exist; give images, a folder of images or a pack")
    return ImageSet(images, tuple(notes))


def is_pack(path: Path) -> bool:
    """Whether ``path`` is the folder of a complete pack."""
    return (path / FILE_NAME).is_file()


def _below(root: Path) -> ImageSet:
    """The images in a folder and in the folders below it."""
    images: list[ImageFile] = []
    others: list[str] = []
    entered = set()

    def refuse(error: OSError) -> None:
        raise ConfigError(f"cannot list {error.filename}: {first_line(error)}") from error

    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = sorted(filter(visible, folders)) if real not in entered else []
        if real in entered:  # a link to a folder above it
            continue
        entered.add(real)
        for name in sorted(filter(visible, files)):
            path = os.path.join(folder, name)
            if has_image_suffix(name):
                images.append(ImageFile(path))
            else:
                others.append(path)
    if not images:
        raise ConfigError(f"{root} holds no files with an image's extension, such as .jpg or .png")
    if not others:
        return ImageSet(images)
    note = (
        f"{root}: files without an image's extension are left out: {len(others):,}, the first is "
        f"{others[0]}"
    )
    return ImageSet(images, (note,))


def _check_folder(path: Path, selection: Selection) -> None:
    if not path.exists():
        raise ConfigError(f"there is no pack and no folder {path}")
    if not path.is_dir():
        raise ConfigError(f"{path} is neither a pack nor a folder of images")
    if selection != Selection():
        raise ConfigError(
            f"{path} is a folder; --domains, --classes and --splits select images of packs"
        )
