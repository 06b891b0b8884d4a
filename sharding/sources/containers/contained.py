"""Data sets whose images lie in containers, next to what says their classes.

Which classes there are is known only when all containers were listed. They are listed once: what
was found is kept in a temporary file, so that a million samples take little memory.
"""

import os
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.containers.files import ContainerFile, splits_of
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.names import check_name, in_order, is_number, may_be_name
from sharding.workers import processes, submit

_CHUNK = 4096  # samples that are kept together
_LARGE = 100 * 10**6  # bytes; of less, starting processes takes longer than listing


class Fault(Exception):
    """Why a sample cannot be packed."""


class Found(NamedTuple):
    """A sample as its container describes it.

    Attributes:
        source: its name in the container.
        size, offset: as in ``Sample``.
        class_, domain: names.
        fault: why it cannot be packed, one of a few texts; "" if it can.
    """

    source: str
    size: int = 0
    offset: int = 0
    class_: str = ""
    domain: str = "default"
    fault: str = ""


Find = Callable[[ContainerFile], Iterator[Found]]


@dataclass(frozen=True)
class FaultReader:
    """Reads samples by ``read``, except those whose offset -1 - n says that they have the n-th of
    ``faults``."""

    read: Callable[[Sample], bytes]
    faults: tuple[str, ...]

    def __call__(self, sample: Sample) -> bytes:
        """The bytes of the image.

        Raises:
            OSError: the sample has a fault, or as ``read``.
            PackError: as ``read``.
        """
        if sample.offset < 0:
            raise OSError(self.faults[-1 - sample.offset])
        return self.read(sample)


def name_of(value: str, names: Sequence[str] | None) -> str:
    """The name that ``value`` means: its number or itself in ``names`` or, without them, itself.

    Raises:
        Fault: there is none.
    """
    if names is None:
        if not may_be_name(value):
            raise Fault("a name that is empty, too long or has control characters")
        return value
    if is_number(value) and int(value) < len(names):
        return names[int(value)]
    if value in names:
        return value
    raise Fault(f"a label that is not one of the {len(names):,} classes")


def contained_dataset(
    name: str,
    files: Sequence[ContainerFile],
    find: Find,
    read: Callable[[Sample], bytes],
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """The data set of what ``find`` finds in each of ``files``.

    Args:
        find: picklable, since large files are listed in worker processes.
        read: reads a sample, whose container is the file's position in ``files``.
        classes: names in label order; by default those of the samples, in order.

    Raises:
        PackError: as ``find``; no sample has a class.
    """
    found = _Spool(files, find)
    title = str(files[0].container.path)
    classes = classes or in_order(found.classes, "classes", title)
    if not classes:
        raise PackError(
            f"no image in {title} has a class ({' or '.join(found.faults) or 'it has no images'}); "
            "see `--help` for what can say it"
        )
    domains = in_order(found.domains, "domains", title) or ("default",)
    splits, faults = splits_of(files), tuple(found.faults)
    label_of, domain_of, fault_of = (
        {name: number for number, name in enumerate(names)} for names in (classes, domains, faults)
    )

    def samples() -> Iterator[Sample]:
        for number, sample in found.all():
            file, fault = files[number], sample.fault
            yield Sample(
                f"{file.name}/{sample.source}",
                sample.size,
                0 if fault else label_of[sample.class_],
                0 if fault else domain_of[sample.domain],
                splits.index(file.split) if file.split in splits else 0,
                file.container.modified,
                number,
                -1 - fault_of[fault] if fault else sample.offset,
            )

    return Dataset(
        name, classes, domains, splits, samples, FaultReader(read, faults), notes=_notes(files)
    )


class _Spool:
    """What is found in ``files``, kept in a temporary file, and the names that occur."""

    def __init__(
        self,
        files: Sequence[ContainerFile],
        find: Find,
    ) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed with its last reference
        self.classes: set[str] = set()
        self.domains: set[str] = set()
        self.faults: dict[str, None] = {}
        for number, chunk in _find_all(files, find):
            for sample in chunk:
                self._note(Found(*sample), str(files[number].container.path))
            pickle.dump((number, chunk), self._file)

    def all(self) -> Iterator[tuple[int, Found]]:
        """Each sample, with the position of its file."""
        end, position = self._file.seek(0, 2), 0
        while position < end:  # another iteration may have moved the file's position
            self._file.seek(position)
            number, chunk = pickle.load(self._file)
            position = self._file.tell()
            yield from ((number, Found(*sample)) for sample in chunk)

    def _note(self, sample: Found, where: str) -> None:
        if sample.fault:
            self.faults[sample.fault] = None
            return
        for names, name in ((self.classes, sample.class_), (self.domains, sample.domain)):
            if name not in names:
                check_name(name, f"{where}, {sample.source!a:.200}")
                names.add(name)


def _find_all(files: Sequence[ContainerFile], find: Find) -> Iterator[tuple[int, list[tuple]]]:
    """What is found in each file, by chunks; large files are listed by all cores."""
    if len(files) == 1 or sum(file.container.size for file in files) < _LARGE:
        for number, file in enumerate(files):
            samples = map(tuple, find(file))
            while chunk := list(islice(samples, _CHUNK)):
                yield number, chunk
        return
    with processes(len(os.sched_getaffinity(0))) as pool:
        waiting = deque(submit(pool, partial(_find_in, find), files))
        for number in range(len(files)):
            yield number, waiting.popleft().result()


def _find_in(find: Find, file: ContainerFile) -> list[tuple]:
    return [tuple(sample) for sample in find(file)]


def _notes(files: Sequence[ContainerFile]) -> tuple[str, ...]:
    without = [file.name for file in files if file.split is None]
    if not without or len(without) == len(files):
        return ()
    return (
        f"{len(without):,} of {len(files):,} files do not state a split in their names, "
        f"{without[0]} is the first; all images are in the split `all`",
    )
