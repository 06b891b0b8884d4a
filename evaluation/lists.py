"""Lists of images with their labels: text files, and JSON files in the form of OODDB.

They may come from anywhere: they are read within bounds, and every mistake is one line that names
the file and the place in it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from runtime.errors import ConfigError, first_line
from runtime.files import open_regular
from sharding.format.files import MalformedError
from sharding.format.strict_json import parse

_MAX_JSON_BYTES = 1 << 24
_MAX_TEXT_BYTES = 1 << 27  # a list of ImageNet's training images has 80 MB
_MAX_PATH = 4096
_LABEL = re.compile(r"[0-9]{1,9}")


class Key(NamedTuple):
    """A key of a JSON list, ``<label>;<class>``, ``<label>;<class>;<domain>`` or
    ``<label>;<class>,<official number>;<domain>``; what it lacks is empty."""

    label: int
    name: str
    official: str
    domain: str


class Layout(NamedTuple):
    """How the JSON lists of a data set name its images.

    Attributes:
        values: type of the images in the lists: int for numbers, which source paths may have with
            zeros in front, or str for names.
        path: the source path of an image, from the list's file name, the key and the image.
    """

    values: type[int] | type[str]
    path: Callable[[str, Key, int | str], str]


PATHS = Layout(str, lambda file, key, image: str(image))


class Entry(NamedTuple):
    """An image of a list.

    Attributes:
        path: its source path, below the list's root.
        label: 0 or more.
        name: its class, where the list has it.
        place: where it stands in the file, for messages.
    """

    path: str
    label: int
    name: str | None
    place: str


@dataclass(frozen=True)
class ImageList:
    """The images that a file lists: `path label` in each line, or, in a file `*.json`, an object
    of lists of images by ``Key``.

    Attributes:
        path: the file.
        root: folders at the front of each listed path that the pack's source paths lack.
        layout: what the images of a JSON list are.
    """

    path: Path
    root: str = ""
    layout: Layout = PATHS

    @property
    def is_json(self) -> bool:
        return self.path.suffix.lower() == ".json"

    @property
    def numbered(self) -> bool:
        """Whether the file has numbers of images in place of their paths."""
        return self.is_json and self.layout.values is int

    def read(self) -> list[Entry]:
        """The listed images, in the file's order.

        A text list may hold an image once, a JSON list once with each label, as OODDB's lists do.

        Raises:
            ConfigError: the file cannot be read, is too large, does not have its form, holds an
                image twice or none, or a path is not below ``root``.
        """
        content = self._content()
        entries = list(self._json(content) if self.is_json else self._text(content))
        if not entries:
            self._fail("it lists no images")
        first: dict[tuple[str, int], str] = {}
        for entry in entries:
            image = entry.path, entry.label if self.is_json else 0
            if image in first:
                self._fail(f"{entry.place}: {_shown(entry.path)} is already in {first[image]}")
            first[image] = entry.place
        return entries

    def _content(self) -> bytes:
        most = _MAX_JSON_BYTES if self.is_json else _MAX_TEXT_BYTES
        try:
            with open_regular(self.path, max_bytes=most) as file:
                return file.read(most)
        except OSError as error:
            hint = "; is --lists right?" if isinstance(error, FileNotFoundError) else ""
            raise ConfigError(
                f"cannot read the list {self.path}: {first_line(error)}{hint}"
            ) from error

    def _text(self, content: bytes) -> Iterator[Entry]:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = content.count(b"\n", 0, error.start) + 1
            self._fail(f"line {number}: it is not UTF-8", error)
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
            path, label = ["", "", *line.rsplit(maxsplit=1)][-2:]
            path, place = path.lstrip(), f"line {number}"
            if not path or len(path) > _MAX_PATH or not _LABEL.fullmatch(label):
                self._fail(
                    f"{place}: expected `path label`, the label a number from 0, "
                    f"found {_shown(line)}"
                )
            yield Entry(self._below_root(path, place), int(label), None, place)

    def _json(self, content: bytes) -> Iterator[Entry]:
        try:
            lists = parse(content)
        except (MalformedError, ValueError) as error:
            self._fail(str(error), error)
        for text, images in lists.items():
            place = f"key {_shown(text)}"
            key = self._key(text, place)
            if not isinstance(images, list) or not images:
                self._fail(f"{place}: expected a list of images")
            for image in images:
                if type(image) is not self.layout.values or (isinstance(image, int) and image < 0):
                    what = "numbers from 0" if self.layout.values is int else "names"
                    self._fail(f"{place}: expected {what} of images, found {_shown(image)}")
                path = self.layout.path(self.path.name, key, image)
                yield Entry(self._below_root(path, place), key.label, key.name, place)

    def _key(self, text: str, place: str) -> Key:
        label, *rest = text.split(";")
        name, comma, official = rest[0].partition(",") if rest else ("", "", "")
        domain = rest[1] if len(rest) == 2 else ""
        complete = name and (official or not comma) and (domain or len(rest) == 1)
        if not _LABEL.fullmatch(label) or not complete or not text.isprintable():
            self._fail(f"{place}: expected `<label>;<class>`, the label a number from 0")
        return Key(int(label), name, official, domain)

    def _below_root(self, path: str, place: str) -> str:
        if self.root and not path.startswith(f"{self.root}/"):
            self._fail(f"{place}: {_shown(path)} is not below the root {_shown(self.root)}")
        return path[len(self.root) + 1 :] if self.root else path

    def _fail(self, reason: str, cause: Exception | None = None) -> NoReturn:
        raise ConfigError(f"{self.path}: {reason}") from cause


def _shown(value: object) -> str:
    """A value for a message, on one line and cut."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 120 else text[:120] + "…"
