"""What is packed: named classes, domains and splits, samples in order, and a way to read them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

UNKNOWN_TIME = -1


@dataclass(frozen=True)
class Sample:
    """One source image.

    Attributes:
        source: its name, unique in the data set; for a file the path below the root.
        size: bytes, or 0 if unknown or unreadable; used to balance shards.
        label, domain, split: positions in the data set's ``classes``, ``domains``, ``splits``.
        modified: modification time in ns since 1970, or ``UNKNOWN_TIME``.
        container, offset: where the image is inside an archive or a table: the number of that file
            in the data set, and the place in it, in the unit of the data set's ``read``.
    """

    source: str
    size: int
    label: int
    domain: int = 0
    split: int = 0
    modified: int = UNKNOWN_TIME
    container: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Dataset:
    """A data set to pack.

    Attributes:
        name: goes into the manifest.
        classes: names in label order.
        domains, splits: names.
        samples: lists the samples, in the same order at every call.
        read: gives a sample's encoded image; runs in worker processes, so it has to be picklable.
            It raises OSError for what cannot be read, and PackError for what is no longer what was
            listed.
        shuffled: whether a sequential reader should meet the samples of each split in a seeded
            global shuffle.
        variant: what else the images depend on, e.g. a seed; "" for nothing.
        notes: what the tree holds that is not packed, a line each, for the user.
    """

    name: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    samples: Callable[[], Iterator[Sample]]
    read: Callable[[Sample], bytes]
    shuffled: bool = False
    variant: str = ""
    notes: tuple[str, ...] = ()
