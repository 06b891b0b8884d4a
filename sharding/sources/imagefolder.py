"""Any tree of class folders, with domains, splits or both above them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.dataset import Dataset
from sharding.sources.split_folders import SPLITS, find_splits
from sharding.sources.tree import (
    HELD_OUT,
    class_tree,
    content_of,
    domain_tree,
    folders,
    group_tree,
    images_folder,
    left_out_note,
    loose_images,
)

_NAME = "imagefolder"


@dataclass(frozen=True)
class ImageFolderOptions:
    """Which folders are splits."""

    splits: list[str] | None = field(
        default=None,
        metadata={
            "nargs": "+",
            "metavar": "NAME",
            "help": "folders that are splits, or `none`; by default "
            f"{', '.join(SPLITS)}, where all folders of a level are called so",
        },
    )


def imagefolder(root: Path, options: ImageFolderOptions | None = None) -> Dataset:
    """The data set of a `<domain>/<class>/<image>` or `<class>/<image>` tree; classes and domains
    are sorted by name. A level of splits, `train`, `val`, …, may be above or below the domains.
    A class folder may also be `<class>/images/<image>`, as in Tiny-ImageNet.

    Raises:
        PackError: ``root`` is not such a tree; the message says what was found.
    """
    names = options.splits if options else None
    if names != ["none"] and (found := find_splits(root, names)):
        notes = left_out_note(root, found.unused) + loose_images(root)
        dataset = group_tree(_NAME, root, found.groups, found.domains, found.splits, notes=notes)
        folders_read = ", ".join(f"{split}/" for split in found.splits)
        meaning = "; `--splits none` reads them as domains or classes" if names is None else ""
        return replace(dataset, found=f"folders of splits: {folders_read}{meaning}")
    top = content_of(root)
    if not top.folders and top.images:
        raise PackError(
            f"{root} holds {len(top.images):,} images but no folders; move each image into a "
            "folder named after its class, <class>/<image>"
        )
    folder_of = {name: folder for name in top.folders if (folder := images_folder(root, name))}
    domains = [name for name in top.folders if name not in folder_of and folders(root / name)]
    omitted = [name for name in folder_of if domains and name.lower() in HELD_OUT]
    for name in omitted:
        del folder_of[name]
    notes = left_out_note(root, omitted) + loose_images(root)
    if not folder_of:
        return domain_tree(_NAME, root, domains, notes=notes)
    if odd := [name for name in top.folders if name not in folder_of and name not in omitted]:
        raise PackError(
            f"{root}: {next(iter(folder_of))}/ holds files but {odd[0]}/ does not; expected "
            "<class>/<image> or <domain>/<class>/<image> throughout; move or remove the odd folders"
        )
    return class_tree(_NAME, root, folder_of, notes=notes)
