"""Any tree of class folders, with domains, splits or both above them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.dataset import Dataset
from sharding.sources.split_folders import SPLITS, find_splits
from sharding.sources.tree import (
    HELD_OUT,
    class_place,
    class_tree,
    content_of,
    domain_tree,
    folders,
    group_tree,
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
    `<class>/images/<image>`, as Tiny-ImageNet has it, is read as well.

    Raises:
        PackError: ``root`` is not such a tree; says what was found.
    """
    names = options.splits if options else None
    if names != ["none"] and (found := find_splits(root, names)):
        notes = left_out_note(root, found.unused) + loose_images(root)
        dataset = group_tree(_NAME, root, found.groups, found.domains, found.splits, notes=notes)
        folders_read = ", ".join(f"{split}/" for split in found.splits)
        meaning = "; with `--splits none` they are domains or classes" if names is None else ""
        return replace(dataset, found=f"{folders_read} are splits{meaning}")
    top = content_of(root)
    if not top.folders and top.images:
        raise PackError(
            f"{root} holds {len(top.images):,} images but no folders; move each image into a "
            "folder named after its class, <class>/<image>"
        )
    places = {name: place for name in top.folders if (place := class_place(root, name))}
    domains = [name for name in top.folders if name not in places and folders(root / name)]
    omitted = [name for name in places if domains and name.lower() in HELD_OUT]
    for name in omitted:
        del places[name]
    notes = left_out_note(root, omitted) + loose_images(root)
    if not places:
        return domain_tree(_NAME, root, domains, notes=notes)
    if odd := [name for name in top.folders if name not in places and name not in omitted]:
        raise PackError(
            f"{root}: {next(iter(places))}/ holds files but {odd[0]}/ does not; expected "
            "<class>/<image> or <domain>/<class>/<image> throughout; move or remove the odd folders"
        )
    return class_tree(_NAME, root, places, notes=notes)
