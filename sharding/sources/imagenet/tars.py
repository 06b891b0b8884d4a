"""ImageNet as tars of synsets, read without unpacking: `ILSVRC2012_img_train.tar`, which holds one
tar for each synset, or a folder of those, and `ILSVRC2012_img_val.tar`."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.containers.archives import Member, members
from sharding.sources.containers.container import Container, ContainerReader
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.expect import some
from sharding.sources.imagenet import devkit
from sharding.sources.imagenet.choice import TRAIN, VAL, Choice
from sharding.sources.tree import files, visible

TRAIN_TARS = ("ILSVRC2012_img_train.tar", "fall11_whole.tar")
VAL_TAR = "ILSVRC2012_img_val.tar"
_SYNSET_TAR = re.compile(r"(n\d{8})\.tar")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip")


class _Part(NamedTuple):
    """Where the tar of a synset is: the number of its container, and the member it is of it, or
    None if it is the container itself."""

    container: int
    within: Member | None


def find_tar(root: Path) -> str:
    """What is there of a tar of tars in ``root``."""
    return next((name for name in TRAIN_TARS if (root / name).is_file()), "")


def find_synset_tars(root: Path) -> str:
    """What is there of tars of synsets in ``root`` or its folder `train`."""
    for folder in (root / "train", root):
        if names := _synset_tars(folder):
            return f"{len(names):,} tars of synsets in {folder.name}/"
    return ""


def tar_of_tars(root: Path, choice: Choice) -> Dataset:
    """The data set of the tar of tars in ``root``, and of the validation tar if it has labels.

    Raises:
        PackError: an archive is damaged or holds something else, a synset is missing, or the ground
            truth does not fit.
    """
    outer = Container.at(root / find_tar(root))
    parts: dict[str, _Part] = {}
    with outer.open() as file:
        for member in members(file, outer.path):
            name = _SYNSET_TAR.fullmatch(PurePosixPath(member.name).name)
            if not name or name[1] in parts:
                raise PackError(
                    f"{outer.path} holds {member.name!r}; expected one tar for each synset, "
                    "n01440764.tar, …"
                )
            parts[name[1]] = _Part(0, member)
    return _dataset(root, choice, choice.labels(sorted(parts), outer.path), (outer,), parts)


def synset_tars(root: Path, choice: Choice) -> Dataset:
    """The data set of a folder of tars, one for each synset; otherwise as ``tar_of_tars``."""
    folder = root / "train" if _synset_tars(root / "train") else root
    found = _synset_tars(folder)
    labels = choice.labels(found, folder)
    containers = tuple(Container.at(folder / f"{synset}.tar") for synset in labels)
    parts = {synset: _Part(number, None) for number, synset in enumerate(labels)}
    return _dataset(root, choice, labels, containers, parts)


def _synset_tars(folder: Path) -> list[str]:
    names = list(files(folder)) if folder.is_dir() else []
    return [found[1] for name in names if (found := _SYNSET_TAR.fullmatch(name))]


def _dataset(
    root: Path,
    choice: Choice,
    labels: dict[str, int],
    containers: tuple[Container, ...],
    parts: dict[str, _Part],
) -> Dataset:
    truth: list[str] | None = None
    notes: tuple[str, ...] = ()
    if (root / VAL_TAR).is_file():
        if kit := devkit.find(root):
            truth = devkit.ground_truth(kit)
            _expect_known(truth, labels, choice, kit)
            containers = (*containers, Container.at(root / VAL_TAR))
        else:
            notes = (
                f"{root / VAL_TAR} has no labels and is left out; put {devkit.ARCHIVE} into {root}",
            )

    def samples() -> Iterator[Sample]:
        top = "train/" if truth else ""
        for synset, label in labels.items():
            container = containers[parts[synset].container]
            place = partial(Sample, label=label, split=TRAIN, container=parts[synset].container)
            for name, member in _images(container, parts[synset].within, synset):
                yield place(
                    f"{top}{synset}/{name}",
                    member.size,
                    modified=container.modified,
                    offset=member.offset,
                )
        if truth:
            yield from _validation(containers, truth, labels)

    return choice.dataset(
        labels,
        samples,
        ContainerReader(containers),
        validation=truth is not None,
        shuffled=True,
        notes=notes,
    )


def _images(container: Container, within: Member | None, folder: str) -> list[tuple[str, Member]]:
    """The images in an archive by name: directly in it, or in a single ``folder``."""
    found = []
    with container.open() as file:
        for member in members(file, container.path, within):
            *parents, name = PurePosixPath(member.name).parts
            if parents not in ([], [folder]) or name.lower().endswith(_ARCHIVES):
                title = f"{within.name} in {container.path}" if within else container.path
                raise PackError(f"{title} holds {member.name!r}; expected images, not in folders")
            if visible(name):
                found.append((name, member))
        container.check(file)
    return sorted(found)


def _expect_known(truth: Sequence[str], labels: dict[str, int], choice: Choice, kit: Path) -> None:
    if choice.classes is None and (unknown := sorted(set(truth) - set(labels))):
        raise PackError(
            f"{kit} names {len(unknown)} synsets that are not among the training images: "
            f"{some(unknown)}; get both from the same release"
        )


def _validation(
    containers: tuple[Container, ...], truth: Sequence[str], labels: dict[str, int]
) -> Iterator[Sample]:
    """The samples of the last container, the validation tar, by name."""
    number, container = len(containers) - 1, containers[-1]
    found = _images(container, None, "val")
    if len(found) != len(truth):
        raise PackError(
            f"{container.path} holds {len(found):,} images, the ground truth {len(truth):,}; get "
            "both from the same release"
        )
    for place, (name, member) in enumerate(found, start=1):
        image = _VAL_IMAGE.fullmatch(name)
        if not image or int(image[1]) != place:
            raise PackError(
                f"{container.path} holds {name!r}; expected ILSVRC2012_val_{place:08d}.JPEG"
            )
        label = labels.get(truth[place - 1])
        if label is not None:  # not one that --classes leaves out
            yield Sample(
                f"val/{name}", member.size, label, 0, VAL, container.modified, number, member.offset
            )
