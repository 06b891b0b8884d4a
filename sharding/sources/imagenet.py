"""ImageNet's training and validation images, labeled by sorted synset."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.expect import expect_folders, inside, wrong_tree
from sharding.sources.files import FileReader, state_of
from sharding.sources.tree import class_folder, files, folders, left_out, loose_images

NUM_CLASSES = 1000
SOLUTION = "LOC_val_solution.csv"
_SYNSET = re.compile(r"n\d{8}")
_TRAIN, _VAL = 0, 1

_Listing = Callable[[], Iterator[Sample]]


def imagenet(root: Path) -> Dataset:
    """ImageNet: `train/<synset>/<image>` and, if there is one, `val/<synset>/<image>`, below
    `ILSVRC/Data/CLS-LOC`, `Data/CLS-LOC` or ``root``; ``root`` may be the training folder itself.
    A flat `val/<image>`, as Kaggle publishes it, takes its labels from `LOC_val_solution.csv` in
    ``root``; without that file it is left out. Each split is packed in a seeded global shuffle.

    Raises:
        PackError: synsets are missing, or a flat validation image has no label.
    """
    base = inside(root, "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
    train = base / "train" if (base / "train").is_dir() else root
    found = folders(train)
    synsets = [name for name in found if _SYNSET.fullmatch(name)]
    if len(synsets) != NUM_CLASSES:
        raise wrong_tree(train, f"{NUM_CLASSES} synset folders like n01440764", found)
    if train != root and (base / "val").is_dir():
        validation, notes = _validation(root, base, synsets)
        notes += left_out(base, ["val"])
    else:
        validation, notes = None, left_out(train.parent) if train.name == "train" else ()
    # Without validation images, source paths start below `train`, as in earlier packs.
    top, parent = (base, "train/") if validation else (train, "")

    def samples() -> Iterator[Sample]:
        yield from _class_folders(top, parent, synsets, _TRAIN)
        if validation:
            yield from validation()

    return Dataset(
        "imagenet",
        tuple(synsets),
        ("default",),
        ("train", "val") if validation else ("train",),
        samples,
        FileReader(top),
        shuffled=True,
        notes=notes,
    )


def _validation(
    root: Path, base: Path, synsets: Sequence[str]
) -> tuple[_Listing | None, tuple[str, ...]]:
    """What lists the images in ``base/val``, or None if they have no labels; and the notes."""
    val = base / "val"
    if folders(val):
        expect_folders(val, synsets)
        return partial(_class_folders, base, "val/", synsets, _VAL), loose_images(val)
    solution = root / SOLUTION
    if solution.exists():
        return partial(_flat, val, _labels(solution, val, synsets)), ()
    return None, (
        f"{val} has no class folders and is left out; put {SOLUTION} into {root}, or move each "
        "image into the folder of its synset",
    )


def _class_folders(base: Path, parent: str, synsets: Sequence[str], split: int) -> Iterator[Sample]:
    for label, synset in enumerate(synsets):
        yield from class_folder(f"{parent}{synset}", base, label, split=split)


def _flat(val: Path, labels: dict[str, int]) -> Iterator[Sample]:
    for name in sorted(labels):
        size, modified = state_of(str(val / name))
        yield Sample(f"val/{name}", size, labels[name], split=_VAL, modified=modified)


def _labels(solution: Path, val: Path, synsets: Sequence[str]) -> dict[str, int]:
    """The label of each image file, from Kaggle's table with lines `<image>,<synset> <box> …`."""
    label_of = {synset: label for label, synset in enumerate(synsets)}
    labels = {}
    try:
        with solution.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                image, synset = row.get("ImageId"), (row.get("PredictionString") or "").split()[:1]
                if not image or not synset or synset[0] not in label_of:
                    raise PackError(
                        f"{solution}, line {number}: expected `<image>,<synset> …` below "
                        "`ImageId,PredictionString`; get the published file"
                    )
                labels[f"{image}.JPEG"] = label_of[synset[0]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PackError(f"cannot read {solution}: {error}; get the published file") from error
    if unlabeled := [name for name in files(val) if name not in labels]:
        raise PackError(
            f"{solution} has no label for {len(unlabeled):,} files in {val}, {unlabeled[0]} is "
            "the first; remove them or get the published file"
        )
    return labels
