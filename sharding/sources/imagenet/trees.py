"""ImageNet as unpacked trees: class folders, and Kaggle's flat validation folder with its table."""

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from runtime.errors import PackError, first_line
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.expect import inside, some
from sharding.sources.files import FileReader, state_of
from sharding.sources.imagenet.choice import SYNSET, TRAIN, VAL, Choice
from sharding.sources.tree import class_folder, files, folders, left_out, loose_images

SOLUTION = "LOC_val_solution.csv"

_Listing = Callable[[], Iterator[Sample]]


def find_tree(root: Path) -> str:
    """What is there of synset folders in ``root``."""
    train = _training_folder(root)
    found = len(_synsets(train))
    return f"{found:,} synset folders in {train.name}/" if found else ""


def tree(root: Path, choice: Choice) -> Dataset:
    """The data set of `train/<synset>/<image>` and `val/<synset>/<image>` or `val/<image>`, or of
    the training folder alone.

    Raises:
        PackError: synsets are missing, or a flat validation image has no label.
    """
    train = _training_folder(root)
    base = train.parent
    labels = choice.labels(_synsets(train), train)
    if train != root and (base / "val").is_dir():
        validation, notes = _validation(root, base / "val", labels, choice)
        notes += left_out(base, ["val"])
    else:
        validation, notes = None, left_out(base) if train.name == "train" else ()
    # Without validation images, source paths start below `train`, as in earlier packs.
    top, parent = (base, "train/") if validation else (train, "")

    def samples() -> Iterator[Sample]:
        yield from _class_folders(top, parent, labels, TRAIN)
        if validation:
            yield from validation()

    return choice.dataset(
        labels,
        samples,
        FileReader(top),
        validation=validation is not None,
        shuffled=True,
        notes=notes,
    )


def _training_folder(root: Path) -> Path:
    """``root``, or the folder `train` in it or where Kaggle's archive has it."""
    base = inside(root, "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
    return base / "train" if (base / "train").is_dir() else root


def _synsets(train: Path) -> list[str]:
    return [name for name in folders(train) if SYNSET.fullmatch(name)]


def _validation(
    root: Path, val: Path, labels: dict[str, int], choice: Choice
) -> tuple[_Listing | None, tuple[str, ...]]:
    """What lists the validation images in ``val``, if they have labels, and notes."""
    if found := folders(val):
        present = labels
        if choice.count is None:
            present = {synset: label for synset, label in labels.items() if synset in found}
        if missing := [synset for synset in present if synset not in set(found)]:
            raise PackError(
                f"{val}: expected the {len(present)} folders {some(list(present))}, found "
                f"{len(found)}: {some(found)} (missing: {some(missing)}); complete it"
            )
        return partial(_class_folders, val.parent, "val/", present, VAL), loose_images(val)
    solution = root / SOLUTION
    if solution.exists():
        return partial(_flat, val, _labels(solution, val, labels, choice)), ()
    return None, (
        f"{val} has no class folders and is left out; put {SOLUTION} into {root}, or move each "
        "image into the folder of its synset",
    )


def _class_folders(base: Path, parent: str, labels: dict[str, int], split: int) -> Iterator[Sample]:
    for synset, label in labels.items():
        yield from class_folder(f"{parent}{synset}", base, label, split=split)


def _flat(val: Path, labels: dict[str, int]) -> Iterator[Sample]:
    for name in sorted(labels):
        size, modified = state_of(str(val / name))
        yield Sample(f"val/{name}", size, labels[name], split=VAL, modified=modified)


def _labels(solution: Path, val: Path, label_of: dict[str, int], choice: Choice) -> dict[str, int]:
    """The label of each image file, by Kaggle's table: `<image>,<synset> <box> …` in each line."""
    synsets: dict[str, str] = {}
    try:
        with solution.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                image, boxes = row.get("ImageId"), (row.get("PredictionString") or "").split()
                known = boxes and (boxes[0] in label_of or choice.leaves_out(boxes[0]))
                if not image or not known:
                    raise PackError(
                        f"{solution}, line {number}: expected `<image>,<synset> …` below "
                        "`ImageId,PredictionString`; get the published file"
                    )
                synsets[f"{image}.JPEG"] = boxes[0]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PackError(
            f"cannot read {solution}: {first_line(error)}; get the published file"
        ) from error
    if unlabeled := [name for name in files(val) if name not in synsets]:
        raise PackError(
            f"{solution} has no label for {len(unlabeled):,} files in {val}, {unlabeled[0]} is "
            "the first; remove them or get the published file"
        )
    return {name: label_of[synset] for name, synset in synsets.items() if synset in label_of}
