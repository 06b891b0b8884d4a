"""Trees laid out as the data sets are published, with as many images as a test needs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.io import savemat

from sharding.sources.published import DTD_CLASSES

PUBLISHED = json.loads((Path(__file__).parent / "evaluation" / "published_counts.json").read_text())

Place = Callable[[Path], object]  # makes one image file


PATTERNNET_CLASSES = (
    *("oil_well", "wastewater_treatment_plant"),
    *(f"{size}_field_{letter}" for size in ("small", "large") for letter in "abcdefghijklmnopqr"),
)
SUN397_CLASSES = ("abbey", "church/indoor", "church/outdoor", *(f"hall_{n}" for n in range(394)))
CARS_CLASSES = tuple(f"Maker Model {number} Sedan 2012" for number in range(196))


class WithoutImages(SimpleNamespace):
    """Stands for a pack by its ``path``, ``manifest`` and ``index``."""

    first_rows = (0,)
    __hash__ = object.__hash__

    @property
    def members(self):
        return (self,)


def images(
    folder: Path, count: int, place: Place | None = None, pattern: str = "{:05d}.jpg"
) -> list[str]:
    """Make the images `00001.jpg` … in ``folder``, empty without ``place``; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [pattern.format(number) for number in range(1, count + 1)]
    for name in names:
        if place:
            place(folder / name)
        elif name == names[0]:
            (folder / name).touch()
        else:
            os.link(folder / names[0], folder / name)  # much faster than creating a file
    return names


def make_pacs(root: Path, place: Place | None = None, most: int = 10**6) -> None:
    for domain, classes in PUBLISHED["images"]["pacs"].items():
        for class_, count in classes.items():
            images(root / "PACS" / "kfold" / domain / class_, min(count, most), place)


def make_officehome(root: Path, place: Place | None = None, most: int = 10**6) -> None:
    """No protocol uses all real-world classes; those whose numbers are not published get one."""
    counts = PUBLISHED["images"]["officehome"]
    for domain, classes in counts.items():
        for class_ in counts["Art"]:
            count = min(classes.get(class_, 1), most)
            images(root / domain.replace("_", " ") / class_, count, place)


def make_dtd(root: Path, place: Place | None = None, most: int = 10**6) -> None:
    """Always 120 images per class: the protocol's masks are for as many."""
    for class_ in DTD_CLASSES:
        images(root / "dtd" / "images" / class_, 120, place)


def make_domainnet(root: Path, place: Place | None = None, most: int = 10**6) -> None:
    """With labels against the alphabet, so that they can only come from the lists."""
    counts = PUBLISHED["images"]["domainnet"]
    names = {name for splits in counts.values() for split in splits.values() for name in split}
    label = {name: number for number, name in enumerate(sorted(names, reverse=True))}
    for domain, splits in counts.items():
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for class_ in sorted(names):
            train, test = (min(splits[split].get(class_, 0), most) for split in ("train", "test"))
            for number, name in enumerate(images(root / domain / class_, train + test, place)):
                split = "train" if number < train else "test"
                lines[split].append(f"{domain}/{class_}/{name} {label[class_]}\n")
        for split, of_split in lines.items():
            (root / f"{domain}_{split}.txt").write_text("".join(of_split))


def make_imagenet(root: Path, place: Place | None = None, most: int = 2) -> None:
    """A thousand synsets, listed backwards."""
    for number in reversed(range(1000)):
        for split, count in (("train", most), ("val", 1)):
            images(root / "Data" / "CLS-LOC" / split / f"n{number * 7:08d}", count, place)


def make_patternnet(root: Path, place: Place | None = None, most: int = 800) -> None:
    for class_ in PATTERNNET_CLASSES:
        short = class_.replace("_", "").replace("treatment", "")
        images(root / "PatternNet" / "images" / class_, most, place, short + "{:03d}.jpg")


def make_sun397(root: Path, place: Place | None = None, most: int = 100) -> None:
    for class_ in SUN397_CLASSES:
        images(root / "SUN397" / class_[0] / class_, most, place, "sun_{:c>8}.jpg")


def make_cars(root: Path, place: Place | None = None, most: int = 41) -> None:
    """With the devkit and the labels of the test images, which are published elsewhere; image n is
    of class n modulo 196."""
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array(CARS_CLASSES, object)})
    for folder, file in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        names = images(root / folder, most * len(CARS_CLASSES), place)
        labels = [int(name[:5]) % len(CARS_CLASSES) + 1 for name in names]
        fields = np.array(list(zip(labels, names)), dtype=[("class", object), ("fname", object)])
        savemat(root / file, {"annotations": fields})


MAKERS: dict[str, Callable[..., None]] = {
    "imagenet": make_imagenet,
    "pacs": make_pacs,
    "officehome": make_officehome,
    "dtd": make_dtd,
    "domainnet": make_domainnet,
    "patternnet": make_patternnet,
    "cars": make_cars,
    "sun397": make_sun397,
}
