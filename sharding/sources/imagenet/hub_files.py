"""The numbered files in which Hugging Face publishes ImageNet: which there are, and whether all."""

import re
from pathlib import Path
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.containers.container import Container
from sharding.sources.dataset import Sample
from sharding.sources.imagenet.choice import TRAIN, VAL
from sharding.sources.tree import files


class HubFiles(NamedTuple):
    """The files of a form.

    Attributes:
        train, val: those of the training and of the validation split, by number.
        notes: what is missing or left out, for the user.
    """

    train: tuple[Container, ...]
    val: tuple[Container, ...]
    notes: tuple[str, ...]

    @property
    def containers(self) -> tuple[Container, ...]:
        """All files; their places are the containers' numbers."""
        return self.train + self.val

    def source(self, number: int, synset: str, name: str) -> str:
        """The source of the image ``name`` in the container ``number``."""
        if number >= len(self.train):
            return f"val/{name}"
        return f"train/{synset}/{name}" if self.val else f"{synset}/{name}"

    def sample(self, number: int, source: str, size: int, label: int, offset: int) -> Sample:
        """The sample at ``offset`` in the container ``number``."""
        split = TRAIN if number < len(self.train) else VAL
        modified = self.containers[number].modified
        return Sample(source, size, label, 0, split, modified, number, offset)


def find_files(root: Path, pattern: re.Pattern[str]) -> int:
    """How many files have names that match ``pattern``, in ``root`` or its folder `data`."""
    return len(_matches(_folder(root, pattern), pattern))


def hub_files(root: Path, pattern: re.Pattern[str], num_train: int | None = None) -> HubFiles:
    """The files in ``root`` or its folder `data`.

    Args:
        root: folder of the data set.
        pattern: of their names, with the groups `split` (train, val or test), `number` and, where
            the names state it, `count`.
        num_train: how many there are of the training split, where the names do not state it.

    Raises:
        PackError: one is missing, or there are two with the same number.
    """
    folder = _folder(root, pattern)
    names: dict[str, dict[int, str]] = {"train": {}, "val": {}, "test": {}}
    counts = {"train": num_train or 1, "val": 0, "test": 0}
    for match in _matches(folder, pattern):
        part, split = match.groupdict(), match["split"]
        number = int(part["number"] or 0)
        if number in names[split]:
            raise PackError(
                f"{folder} holds both {names[split][number]} and {match[0]}; remove one"
            )
        names[split][number] = match[0]
        counts[split] = max(counts[split], int(part.get("count") or 0), number + 1)
    for split in ("train", "val"):
        if missing := sorted(set(range(counts[split])) - set(names[split])):
            raise PackError(
                f"{folder}: {len(missing)} of the {counts[split]} files of the {split} split are "
                f"missing, number {missing[0]} is the first; complete the download"
            )
    notes = [] if names["val"] else [f"{folder} has no validation images; the pack has none either"]
    if tests := len(names["test"]):
        notes.append(f"{folder}: {tests:,} files of test images left out, as they have no labels")
    train, val = (
        tuple(Container.at(folder / name) for _, name in sorted(names[split].items()))
        for split in ("train", "val")
    )
    return HubFiles(train, val, tuple(notes))


def _folder(root: Path, pattern: re.Pattern[str]) -> Path:
    return next((folder for folder in (root, root / "data") if _matches(folder, pattern)), root)


def _matches(folder: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    names = list(files(folder)) if folder.is_dir() else []
    return [match for name in names if (match := pattern.fullmatch(name))]
