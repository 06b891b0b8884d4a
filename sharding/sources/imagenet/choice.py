"""Which synsets of ImageNet are packed, and the names under which its images are packed.

Each image has the same source in every form of the data set: `train/<synset>/<file>` and
`val/<file>`, or `<synset>/<file>` in a pack without validation images.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from runtime.errors import PackError, first_line
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.expect import some

TRAIN, VAL = 0, 1
SYNSET = re.compile(r"n\d{8}")
_NAMED = re.compile(r"(?P<image>(?P<of>n\d{8})_\d+|ILSVRC2012_val_\d{8})(?:_(?P<synset>n\d{8}))?")


class ImageName(NamedTuple):
    """What the name of an image file says: the file's published name without its extension, and the
    image's synset or None."""

    image: str
    synset: str | None


def image_name(stem: str) -> ImageName | None:
    """The image of a file called ``stem``, without its extension, or None for another kind of name.

    Hugging Face appends the synset to the published names: `n01440764_10026_n01440764`.
    """
    found = _NAMED.fullmatch(stem)
    return ImageName(found["image"], found["synset"] or found["of"]) if found else None


@dataclass(frozen=True)
class Choice:
    """What to pack.

    Attributes:
        name: of the data set.
        count: how many synsets it has, or None for any number.
        classes: the synsets that were asked for, or None for all.
    """

    name: str
    count: int | None
    classes: tuple[str, ...] | None = None

    def labels(self, found: Sequence[str], place: object) -> dict[str, int]:
        """The label of each synset to pack: its number among them, sorted.

        Args:
            found: the synsets that are there.
            place: where, for the message.

        Raises:
            PackError: one that was asked for is missing, or their number is wrong.
        """
        if self.classes is not None:
            if missing := sorted(set(self.classes) - set(found)):
                raise PackError(
                    f"{place} lacks {len(missing)} of the {len(self.classes)} synsets of "
                    f"--classes: {some(missing)}; complete it, or remove them from the list"
                )
            chosen = sorted(self.classes)
        elif self.count not in (None, len(set(found))):
            raise PackError(
                f"{place}: expected {self.count} synsets like n01440764, found {len(found)}: "
                f"{some(found)}; complete it, name those to pack with --classes FILE, or pack any "
                "number with `pack imagenet21k`"
            )
        else:
            chosen = sorted(found)
        return {synset: label for label, synset in enumerate(chosen)}

    def leaves_out(self, synset: str) -> bool:
        """Whether ``synset`` may be one of the data set's that was not asked for."""
        return self.classes is not None and SYNSET.fullmatch(synset) is not None

    def dataset(
        self,
        labels: dict[str, int],
        samples: Callable[[], Iterator[Sample]],
        read: Callable[[Sample], bytes],
        *,
        validation: bool,
        **others: Any,
    ) -> Dataset:
        """The data set with the classes of ``labels``, with or without ``validation`` images."""
        splits = ("train", "val") if validation else ("train",)
        return Dataset(self.name, tuple(labels), ("default",), splits, samples, read, **others)


def read_classes(path: Path) -> tuple[str, ...]:
    """The synsets in the file ``path``: the first word of each line.

    Raises:
        PackError: it cannot be read, is empty, or has a line that names no synset or one again.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"cannot read --classes {path}: {first_line(error)}") from error
    classes: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        synset = line.split()[0]
        if not SYNSET.fullmatch(synset) or synset in classes:
            raise PackError(
                f"{path}, line {number}: expected a synset like n01440764 that is not listed yet, "
                f"found {line.strip()[:40]!r}"
            )
        classes[synset] = None
    if not classes:
        raise PackError(f"{path} lists no synsets; write one into each line")
    return tuple(classes)
