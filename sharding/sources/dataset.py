"""What is packed: named classes, domains and splits, samples in order, and a way to read them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One source image.

    Attributes:
        source: its name, unique in the data set; for a file the path below the root.
        size: its bytes, as far as known: shards are cut by it.
        label, domain, split: positions in the data set's ``classes``, ``domains``, ``splits``.
    """

    source: str
    size: int
    label: int
    domain: int = 0
    split: int = 0


@dataclass(frozen=True)
class Dataset:
    """A data set to pack.

    Attributes:
        name: goes into the manifest.
        classes: names in label order.
        domains, splits: names.
        samples: lists the samples, in the same order at every call.
        read: gives a source's encoded image; runs in worker processes, so it can be pickled.
            It raises OSError for what cannot be read.
        shuffled: whether a sequential reader should meet the samples in a seeded global shuffle.
    """

    name: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    samples: Callable[[], Iterator[Sample]]
    read: Callable[[str], bytes]
    shuffled: bool = False


@dataclass(frozen=True)
class FileReader:
    """Reads sources that are files below ``root``."""

    root: Path

    def __call__(self, source: str) -> bytes:
        descriptor = os.open(f"{self.root}/{source}", os.O_RDONLY | os.O_NONBLOCK)  # not for a pipe
        with open(descriptor, "rb", buffering=0) as file:
            return file.read()
