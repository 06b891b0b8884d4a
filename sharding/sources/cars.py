"""Stanford Cars, whose labels are in MATLAB files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from runtime.errors import PackError, first_line
from runtime.files import open_regular
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.expect import expect_folders, inside, some, wrong_tree
from sharding.sources.files import FileReader, state_of
from sharding.sources.matlab import records, strings
from sharding.sources.tree import files, folders, left_out

SPLITS = ("train", "test")
UNLABELED = "unlabeled"
_NAMES = "devkit/cars_meta.mat"
_ANNOTATIONS = {
    "train": ("devkit/cars_train_annos.mat",),
    "test": ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"),
}
_FOLDERS = ("cars_train", "cars_test")
_MAX_BYTES = 1 << 26

T = TypeVar("T")


def cars(root: Path) -> Dataset:
    """Stanford Cars: `cars_train/<image>` and `cars_test/<image>`.

    Classes and labels come from the files of the devkit, in `devkit/`, and from
    `cars_test_annos_withlabels.mat`. The images of a split whose file is missing get the class
    `unlabeled`, the last one: lists of images may still say what they show.

    Raises:
        PackError: a folder is missing, or a file of labels cannot be read or lacks an image.
    """
    root = inside(root, "stanford_cars", "Stanford_Cars")
    expect_folders(root, _FOLDERS)
    for folder in _FOLDERS:
        if inner := folders(root / folder):
            raise wrong_tree(root / folder, "images and no folders", inner)
    classes = _class_names(root)
    labels = {split: _labels(root, split, classes) if classes else None for split in SPLITS}
    without = [split for split in SPLITS if labels[split] is None]
    label = len(classes)

    def samples() -> Iterator[Sample]:
        for number, (split, folder) in enumerate(zip(SPLITS, _FOLDERS, strict=True)):
            label_of = labels[split]
            for name in files(root / folder) if label_of is None else sorted(label_of):
                size, modified = state_of(str(root / folder / name))
                of_image = label if label_of is None else label_of[name]
                yield Sample(f"{folder}/{name}", size, of_image, 0, number, modified)

    return Dataset(
        "cars",
        (*classes, UNLABELED) if without else classes,
        ("default",),
        SPLITS,
        samples,
        FileReader(root),
        notes=left_out(root) + _note(root, without, bool(classes)),
    )


def _note(root: Path, without: list[str], named: bool) -> tuple[str, ...]:
    """What is said of the splits ``without`` labels."""
    if not without:
        return ()
    needed = ([] if named else [_NAMES]) + [_ANNOTATIONS[split][0] for split in without]
    return (
        f"{root}: the {' and '.join(without)} images have no labels and get the class {UNLABELED}; "
        f"for their classes add {' and '.join(needed)}",
    )


def _class_names(root: Path) -> tuple[str, ...]:
    """The classes in label order; none if the devkit is not there."""
    path = root / _NAMES
    if not path.exists():
        return ()
    names = _read(path, lambda content: strings(content, "class_names"))
    if not names or len(set(names)) < len(names):
        raise _wrong(path, "it has no class names, or one of them twice")
    return tuple(names)


def _labels(root: Path, split: str, classes: tuple[str, ...]) -> dict[str, int] | None:
    """The label of each image of ``split``; None if there is no file of its labels."""
    path = next((root / n for n in _ANNOTATIONS[split] if (root / n).exists()), None)
    if path is None:
        return None
    labels = {}
    fields = {"fname": str, "class": int}
    for name, number in _read(path, lambda content: records(content, "annotations", fields)):
        if not 1 <= number <= len(classes) or "/" in name:
            raise _wrong(path, f"{name} has the class {number}, of {len(classes)}")
        labels[name] = number - 1
    if unlabeled := [name for name in files(root / f"cars_{split}") if name not in labels]:
        raise _wrong(path, f"it has no label for {len(unlabeled):,} images: {some(unlabeled)}")
    return labels


def _read(path: Path, parse: Callable[[bytes], list[T]]) -> list[T]:
    """What ``parse`` finds in a MATLAB file."""
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        return parse(content)
    except (OSError, ValueError) as error:
        raise _wrong(path, first_line(error)) from error


def _wrong(path: Path, reason: str) -> PackError:
    return PackError(f"cannot use {path}: {reason}; get the published file")
