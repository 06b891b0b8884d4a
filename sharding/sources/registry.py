"""The data sets that `pack` knows, by name; a new one needs a function and an entry here."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sharding.sources.cars import cars
from sharding.sources.dataset import Dataset
from sharding.sources.imagenet import imagenet
from sharding.sources.published import domainnet, dtd, officehome, pacs, patternnet, sun397
from sharding.sources.tree import imagefolder


@dataclass(frozen=True)
class Source:
    """A kind of data set.

    Attributes:
        make: makes the data set from its root and, where there are ``options``, from an instance of
            them. The first paragraph of its docstring describes the layout in the command's help.
        options: a frozen dataclass, or None. Each field is an option of `pack` with the field's
            name and default; the field's metadata are further arguments of ``add_argument``.
    """

    make: Callable[..., Dataset]
    options: type[Any] | None = None

    @property
    def layout(self) -> str:
        """What the root has to hold."""
        return " ".join((self.make.__doc__ or "").split("\n\n")[0].split())

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the source's own options to ``parser``."""
        for entry in fields(self.options) if self.options else ():
            flag = "--" + entry.name.replace("_", "-")
            parser.add_argument(flag, default=entry.default, **entry.metadata)

    def dataset(self, root: Path, arguments: Namespace) -> Dataset:
        """The data set in ``root`` under the options among the parsed ``arguments``.

        Raises:
            PackError: ``root`` does not hold such a data set.
        """
        if self.options is None:
            return self.make(root)
        given = {entry.name: getattr(arguments, entry.name) for entry in fields(self.options)}
        return self.make(root, self.options(**given))


SOURCES = {
    "imagefolder": Source(imagefolder),
    "imagenet": Source(imagenet),
    "pacs": Source(pacs),
    "officehome": Source(officehome),
    "domainnet": Source(domainnet),
    "dtd": Source(dtd),
    "patternnet": Source(patternnet),
    "cars": Source(cars),
    "sun397": Source(sun397),
}
