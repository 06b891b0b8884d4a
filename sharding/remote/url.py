"""URLs of packs in object stores and on web servers, and what may be printed of them."""

import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.errors import ConfigError


class Driver(NamedTuple):
    """What reads URLs of a scheme.

    Attributes:
        package: the package that fsspec needs for it.
        extra: the extra of this project that installs it.
        can_push: whether packs can be written there.
    """

    package: str
    extra: str
    can_push: bool = True


_S3 = Driver("s3fs", "s3")
_GS = Driver("gcsfs", "gs")
_AZ = Driver("adlfs", "az")
_HTTP = Driver("aiohttp", "http", can_push=False)
DRIVERS = {
    "s3": _S3,
    "gs": _GS,
    "gcs": _GS,
    "az": _AZ,
    "abfs": _AZ,
    "abfss": _AZ,
    "hf": Driver("huggingface_hub", "hf", can_push=False),
    "http": _HTTP,
    "https": _HTTP,
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_QUERY = re.compile(r"\?[^\s\"'<>]+")
_SECRET = re.compile(
    r"(AWS|AZURE|GOOGLE|HF|FSSPEC)_.*(KEY|SECRET|TOKEN|PASSWORD|SAS|CONNECTION_STRING)"
)
_SHORTEST_SECRET = 8
_PORT = re.compile(r"[^:/@]*(:\d+)?/")  # after which an @ belongs to the path


@dataclass(frozen=True)
class PackUrl:
    """The URL of a pack's folder. Its text form leaves out what may be secret.

    Attributes:
        scheme: a key of ``DRIVERS``.
        folder: without the query and without a slash at the end; may contain a password.
        query: of http and https, such as an access token, with its question mark; may be empty.
    """

    scheme: str
    folder: str = field(repr=False)
    query: str = field(default="", repr=False)

    @staticmethod
    def parse(text: str) -> "PackUrl":
        """Raises ConfigError where ``text`` is not the URL of a folder that a driver can read."""
        found = _URL.match(text)
        scheme = found[1].lower() if found else ""
        if not scheme:
            raise ConfigError(f"{text} is not a URL; use e.g. s3://bucket/packs/pacs")
        if scheme not in DRIVERS:
            raise ConfigError(
                f"packs cannot be read from {scheme}://; use a folder, or a URL of "
                f"{', '.join(DRIVERS)}"
            )
        address, mark, query = text.partition("?")
        rest = address.removeprefix(text[: len(scheme) + 3]).strip("/")
        if not rest or not text.isprintable() or " " in text or "#" in text:
            raise ConfigError(
                f"{without_credentials(text)} is not the URL of a folder; use e.g. "
                f"{scheme}://{'server' if scheme in ('http', 'https') else 'bucket'}/packs/pacs"
            )
        user, at, _ = rest.rpartition("@")
        if scheme not in ("http", "https") and (mark or (at and ":" in user)):
            raise ConfigError(
                f"the URL {without_credentials(text)} has a password or a query; give credentials "
                f"in the environment, as {DRIVERS[scheme].package} documents it"
            )
        return PackUrl(scheme, f"{scheme}://{rest}", mark + query)

    @property
    def name(self) -> str:
        """The last part of the path, fit for a folder's name."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", str(self).rpartition("/")[2]).lstrip(".") or "pack"

    @property
    def driver(self) -> Driver:
        return DRIVERS[self.scheme]

    def __str__(self) -> str:
        return without_credentials(self.folder)


def is_url(text: object) -> bool:
    """Whether ``text`` is a URL, and not the path of a folder."""
    return _URL.match(str(text)) is not None


def without_credentials(text: str) -> str:
    """``text`` without the user, password and query of each URL in it."""
    return _IN_TEXT.sub(lambda url: _public(url[0]), text)


def without_secrets(text: str) -> str:
    """``text`` of a driver without credentials, queries, and the secrets that the environment gives
    to drivers."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET.match(name.upper()):
            text = text.replace(value, "***")
    return _QUERY.sub("", without_credentials(text))


def _public(url: str) -> str:
    scheme, _, rest = url.partition("://")
    address = re.split("[?#]", rest, maxsplit=1)[0]
    user, at, host = address.rpartition("@")  # a password may have a slash
    secret = at and not _PORT.match(user) and (":" in user or scheme.startswith("http"))
    return f"{scheme}://{host if secret else address}"
