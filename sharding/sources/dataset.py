"""The interface of a data set to pack: names, samples in order, and how to read a sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
        found: tells the user what the root was found to hold; "" if it has a single form.
        notes: lines that tell the user what the tree holds that is not packed.
        prepare: returns a ``read`` that is faster than ``read``, and first writes what it needs
            into the listing's folder, which every worker sees. Called after ``samples``. None if
            ``read`` needs nothing.
    """

    name: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    samples: Callable[[], Iterator[Sample]]
    read: Callable[[Sample], bytes]
    shuffled: bool = False
    variant: str = ""
    found: str = ""
    notes: tuple[str, ...] = ()
    prepare: Callable[[Path], Callable[[Sample], bytes]] | None = None

    def reader(self, listing: Path) -> Callable[[Sample], bytes]:
        """The ``read`` to use with the listing in the folder ``listing``."""
        return self.prepare(listing) if self.prepare else self.read
