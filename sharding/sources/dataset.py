"""The interface of a data set to pack: names, samples in order, and how to read a sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

UNKNOWN_TIME = -1


@dataclass(frozen=True)
class Sample:
    """One source image.

    Attributes:
        source: its name, unique in the data set; for a file the path below the root.
        size: bytes, or 0 if unknown or unreadable; used to balance shards.
        label, domain, split: indices into the data set's ``classes``, ``domains``, ``splits``.
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
        name: as in the manifest.
        classes: names in label order.
        domains, splits: names.
        samples: iterates over the samples, in the same order at every call.
        read: returns a sample's encoded image. It runs in worker processes, so it must be
            picklable. It raises OSError if the sample cannot be read, and PackError if it has
            changed since it was listed.
        shuffled: whether each split is packed in a seeded global shuffle, for sequential readers.
        variant: what else determines the images, e.g. a seed; "" if nothing does.
        notes: lines that tell the user what the tree holds that is not packed.
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
