"""The folder of a pack in an object store or on a web server, read and written through fsspec.

Credentials are the driver's own business. Whatever it raises becomes a PackError, whose line has no
credentials.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.core import url_to_fs

from runtime.errors import ConfigError, PackError, first_line
from sharding.remote.url import PackUrl, without_secrets

REQUESTS = 16  # at the same time
_WAITS = (
    0.5,
    1.0,
    2.0,
    4.0,
)  # seconds before HTTP's next attempt; the other drivers have their own
_BUSY = (408, 425, 429)  # HTTP statuses that a later attempt may not get

T = TypeVar("T")


class Storage:
    """Access to the files in the folder ``url``; safe to use from several threads.

    Raises:
        ConfigError: the driver is not installed.
        PackError: from each method: the storage refuses, fails, or cannot be reached.
    """

    def __init__(self, url: PackUrl) -> None:
        self.url = url
        try:
            fsspec.get_filesystem_class(url.scheme)
            options = _options(url.scheme)
        except ImportError as error:
            package, extra = url.driver.package, url.driver.extra
            raise ConfigError(
                f"{url.scheme}:// needs the package {package}; run `pip install {package}`, or "
                f"install this project with its extra {extra}"
            ) from error
        self._waits = _WAITS if url.driver.package == "aiohttp" else ()
        self._driver, self._root = self._call(
            "", lambda: url_to_fs(url.folder, skip_instance_cache=True, **options)
        )

    def size(self, name: str) -> int | None:
        """Bytes of the file ``name``; None where there is none."""
        try:
            size = self._call(name, lambda: self._driver.info(self._path(name))["size"])
        except _MissingError:
            return None
        if not isinstance(size, int):
            raise PackError(f"the server does not tell the size of {self.url}/{name}")
        return size

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of the file ``name``."""
        content = self._call(
            name, lambda: self._driver.cat_file(self._path(name), start=start, end=end)
        )
        if len(content) != end - start:
            raise PackError(
                f"{self.url}/{name}: {len(content)} bytes came where {end - start} were asked for; "
                "the file was changed meanwhile, or the server does not support HTTP ranges"
            )
        return content

    def upload(self, name: str, path: Path) -> None:
        """Write the local file ``path`` as ``name``."""
        self._call(name, lambda: self._driver.put_file(str(path), self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write ``content`` as the file ``name``."""
        self._call(name, lambda: self._driver.pipe_file(self._path(name), content))

    def remove(self, name: str) -> None:
        """Remove the file ``name``."""
        self._call(name, lambda: self._driver.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}{self.url.query}"

    def _call(self, name: str, action: Callable[[], T]) -> T:
        for wait in (*self._waits, None):
            try:
                return action()
            except Exception as error:  # a driver raises what its own libraries define
                if type(error).__module__ == "builtins" and not isinstance(error, OSError):
                    raise
                if wait is None or not _may_pass(error):
                    raise self._failure(name, error) from error
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _failure(self, name: str, error: BaseException) -> PackError:
        where = f"{self.url}/{name}" if name else str(self.url)
        status, last = _status(error), _chain(error)[-1]
        unauthorized = status in (401, 403) or "Credential" in type(last).__name__
        if unauthorized or isinstance(error, PermissionError):
            place = (
                "in the URL or ~/.netrc"
                if self.url.driver.package == "aiohttp"
                else f"that {self.url.scheme}:// takes from the environment"
            )
            return PackError(f"access to {where} is denied; check the credentials {place}")
        if status == 404 or (status is None and isinstance(last, FileNotFoundError)):
            return _MissingError(f"{where} is missing")
        reason = f"HTTP status {status}" if status else without_secrets(first_line(last))
        return PackError(f"cannot access {where}: {reason}; rerun the same command to resume")


class _MissingError(PackError):
    """There is no such file."""


def _options(scheme: str) -> dict[str, Any]:
    """What the driver is to do differently from its defaults."""
    if scheme == "s3":
        return {
            "max_concurrency": 4,  # parts of 50 MB of each file that is uploaded are in memory
            "config_kwargs": {
                "max_pool_connections": 2 * REQUESTS,
                # servers that send a checksum of the object with a range of it would be refused
                "response_checksum_validation": "when_required",
            },
        }
    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        return {
            "client_kwargs": {
                "timeout": ClientTimeout(total=None, sock_connect=10, sock_read=30),
                "headers": {"Accept-Encoding": "identity"},
                "trust_env": True,  # proxies, and passwords from ~/.netrc
            }
        }
    return {}


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, the first cause last."""

    def causes() -> Iterator[BaseException]:
        link: BaseException | None = error
        while link is not None:
            yield link
            link = link.__cause__

    return list(causes())


def _status(error: BaseException) -> int | None:
    """The HTTP status that the driver's error tells, each driver in its own way."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        found = (
            response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(response, dict)
            else getattr(response, "status_code", None)
        )
        names = ("status", "status_code") if hasattr(link, "status") else ("status_code", "code")
        for status in (found, *(getattr(link, name, None) for name in names)):
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def _may_pass(error: BaseException) -> bool:
    """Whether a later attempt may succeed."""
    status = _status(error)
    if status is None:
        return not isinstance(_chain(error)[-1], FileNotFoundError | PermissionError)
    return status in _BUSY or status >= 500
