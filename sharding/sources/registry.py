"""The data sets that `pack` knows, by name; a new one needs a function and an entry here."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from sharding.sources.cars import cars
from sharding.sources.dataset import Dataset
from sharding.sources.huggingface import HuggingFaceOptions, huggingface
from sharding.sources.imagefolder import ImageFolderOptions, imagefolder
from sharding.sources.imagenet.forms import ImageNetOptions, imagenet, imagenet21k
from sharding.sources.published import domainnet, dtd, officehome, pacs, patternnet, sun397
from sharding.sources.table import TableOptions, table
from sharding.sources.webdataset import WebDatasetOptions, webdataset


@dataclass(frozen=True)
class Source:
    """A kind of data set.

    Attributes:
        make: makes the data set from its root and, where there are ``options``, from an instance of
            them. The first paragraph of its docstring describes the layout in the command's help.
        options: a frozen dataclass, or None. Each field is an option of `pack` with the field's
            name and default, required if it has none; the field's metadata are further arguments of
            ``add_argument``.
    """

    make: Callable[..., Dataset]
    options: type[Any] | None = None

    @property
    def layout(self) -> str:
        """What the root has to hold."""
        return " ".join((self.make.__doc__ or "").split("\n\n")[0].split())

    def add_options(self, parser: ArgumentParser) -> None:
        """Add the source's own options to ``parser``."""
        for entry in self._options:
            flag = "--" + entry.name.replace("_", "-")
            required = entry.default is MISSING
            default = {"required": True} if required else {"default": entry.default}
            parser.add_argument(flag, **default, **entry.metadata)

    @property
    def needs_options(self) -> bool:
        """Whether there is no data set without options of its own."""
        return any(entry.default is MISSING for entry in self._options)

    def dataset(self, root: Path, arguments: Namespace) -> Dataset:
        """The data set in ``root`` under the options among the parsed ``arguments``, and under the
        defaults of those that the command does not have.

        Raises:
            PackError: ``root`` does not hold such a data set.
        """
        if self.options is None:
            return self.make(root)
        given = {
            entry.name: getattr(arguments, entry.name, entry.default) for entry in self._options
        }
        return self.make(root, self.options(**given))

    @property
    def _options(self) -> tuple[Field[Any], ...]:
        return fields(self.options) if self.options else ()


SOURCES = {
    "imagefolder": Source(imagefolder, ImageFolderOptions),
    "imagenet": Source(imagenet, ImageNetOptions),
    "imagenet21k": Source(imagenet21k, ImageNetOptions),
    "pacs": Source(pacs),
    "officehome": Source(officehome),
    "domainnet": Source(domainnet),
    "dtd": Source(dtd),
    "patternnet": Source(patternnet),
    "cars": Source(cars),
    "sun397": Source(sun397),
    "table": Source(table, TableOptions),
    "webdataset": Source(webdataset, WebDatasetOptions),
    "huggingface": Source(huggingface, HuggingFaceOptions),
}
