"""Lists image trees `<domain>/<class>/<image>` and `<class>/<image>`, a folder at a time."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.files import FileReader, FileState, state_of

_DEBRIS = {"Thumbs.db", "desktop.ini"}
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_IMAGES = "images"  # Tiny-ImageNet keeps a class's images in a folder of this name
_HELD_OUT = {"val", "valid", "validation", "test"}


class _Content(NamedTuple):
    """The sorted names of what a folder holds; links to folders count as folders."""

    folders: list[str]
    files: list[str]

    @property
    def images(self) -> list[str]:
        """The files with an image's extension."""
        return [name for name in self.files if Path(name).suffix.lower() in _IMAGE_SUFFIXES]


def folders(path: Path) -> list[str]:
    """Names of the folders in ``path``, sorted; links to folders count, hidden ones do not."""
    return _content(path).folders


def files(path: Path) -> dict[str, FileState]:
    """The state of everything in the class folder ``path``, by name and sorted by it.

    Non-files and dangling links are listed too, so that reading them fails and they are reported
    as rejects instead of being skipped silently.
    """
    with _scan(path) as entries:
        states = {entry.name: state_of(entry) for entry in entries if _visible(entry)}
    return dict(sorted(states.items()))


def class_folder(
    folder: str, root: Path, label: int, *, domain: int = 0, split: int = 0
) -> Iterator[Sample]:
    """The samples of the class folder ``root/folder``, sorted by name."""
    for name, (size, modified) in files(root / folder).items():
        yield Sample(f"{folder}/{name}", size, label, domain, split, modified)


def left_out(root: Path, used: Sequence[str] = ()) -> tuple[str, ...]:
    """A note on folders of ``root`` that seem to hold a validation or test set and are not among
    ``used``; empty if there are none."""
    names = [name for name in folders(root) if name.lower() in _HELD_OUT and name not in used]
    return _note(root, names)


def loose_images(root: Path) -> tuple[str, ...]:
    """A note on images in ``root`` outside any class folder; empty if there are none."""
    images = _content(root).images
    if not images:
        return ()
    return (
        f"{len(images):,} images directly in {root} are left out, {images[0]} is the first; only "
        "images in class folders are packed",
    )


def imagefolder(root: Path) -> Dataset:
    """The data set of a `<domain>/<class>/<image>` or `<class>/<image>` tree; classes and domains
    are sorted by name. A class folder may also be `<class>/images/<image>`, as in Tiny-ImageNet.

    Raises:
        PackError: ``root`` is not such a tree; the message says what was found.
    """
    top = _content(root)
    if not top.folders and top.images:
        raise PackError(
            f"{root} holds {len(top.images):,} images but no folders; move each image into a "
            "folder named after its class, <class>/<image>"
        )
    folder_of = {name: folder for name in top.folders if (folder := _images_of(root, name))}
    domains = [name for name in top.folders if name not in folder_of and folders(root / name)]
    omitted = [name for name in folder_of if domains and name.lower() in _HELD_OUT]
    for name in omitted:
        del folder_of[name]
    notes = _note(root, omitted) + loose_images(root)
    if not folder_of:
        return domain_tree("imagefolder", root, domains, notes=notes)
    if odd := [name for name in top.folders if name not in folder_of and name not in omitted]:
        raise PackError(
            f"{root}: {next(iter(folder_of))}/ holds files but {odd[0]}/ does not; expected "
            "<class>/<image> or <domain>/<class>/<image> throughout; move or remove the odd folders"
        )
    return class_tree("imagefolder", root, folder_of, notes=notes)


def class_tree(
    name: str, root: Path, folder_of: dict[str, str], *, notes: tuple[str, ...] = ()
) -> Dataset:
    """The data set of class folders below ``root``; ``folder_of`` maps each class, in label order,
    to its folder."""

    def samples() -> Iterator[Sample]:
        for label, folder in enumerate(folder_of.values()):
            yield from class_folder(folder, root, label)

    return Dataset(
        name, tuple(folder_of), ("default",), ("all",), samples, FileReader(root), notes=notes
    )


def domain_tree(
    name: str,
    root: Path,
    domains: Sequence[str],
    domain_names: Sequence[str] | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of `<domain>/<class>/<image>` folders below ``root``, classes sorted by name.
    Domains are named after their folders, or by ``domain_names``.

    Raises:
        PackError: there are no class folders.
    """
    found = {
        domain: {folder: _images_of(root / domain, folder) or folder for folder in names}
        for domain in domains
        for names in [folders(root / domain)]
    }
    classes = sorted(set().union(*found.values()))
    if not classes:
        raise PackError(
            f"{root} holds no images; expected <class>/<image> or <domain>/<class>/<image>"
        )
    label = {folder: number for number, folder in enumerate(classes)}

    def samples() -> Iterator[Sample]:
        for number, domain in enumerate(domains):
            for class_, folder in found[domain].items():
                yield from class_folder(f"{domain}/{folder}", root, label[class_], domain=number)

    names = tuple(domain_names or domains)
    return Dataset(name, tuple(classes), names, ("all",), samples, FileReader(root), notes=notes)


def _images_of(root: Path, name: str) -> str | None:
    """The folder below ``root`` that holds the images of class ``name``; None if ``name`` is not a
    class folder. A class folder holds images, or files and no folders, or one folder `images`."""
    content = _content(root / name)
    if content.folders == [_IMAGES] and not content.images:
        return f"{name}/{_IMAGES}"
    return name if content.images or (content.files and not content.folders) else None


def _note(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    listed = ", ".join(f"{name}/" for name in names)
    return (f"{root}: {listed} left out, not among the class folders that are packed",)


def _content(path: Path) -> _Content:
    with _scan(path) as entries:
        visible = sorted((entry.name, _is_folder(entry)) for entry in entries if _visible(entry))
    return _Content(
        [name for name, is_folder in visible if is_folder],
        [name for name, is_folder in visible if not is_folder],
    )


def _scan(path: Path) -> "os._ScandirIterator[str]":
    try:
        return os.scandir(path)
    except OSError as error:
        raise PackError(f"cannot list {path}: {error.strerror}; is --root right?") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; listed as a file, so that it is reported as a reject
        return False


def _visible(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name not in _DEBRIS
