"""Fetching the files of a remote pack: several at a time, several ranges of each, and resumable.

The ranges of a file are requested ahead and written in order, so that a file that was cut short is
a beginning of the right one: its length says where to continue. It is hashed on the way.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from runtime.errors import PackError
from sharding.format.files import regular_size
from sharding.pack_files import CHUNK, PackFile
from sharding.remote.storage import REQUESTS, Storage
from sharding.remote.threads import Threads

_FILES = 4  # at the same time
_AHEAD = REQUESTS // _FILES  # ranges of a file
_RANGE = 8 * 1024**2  # bytes; _FILES * (_AHEAD + 1) of them are in memory


def download(storage: Storage, files: Sequence[PackFile], folder: Path, bar: tqdm) -> None:
    """Fetch ``files`` into ``folder``, which may have them, or their beginnings, already; ``bar``
    advances by their bytes.

    Raises:
        PackError: the storage fails, or a file does not match its checksum; it is removed then, and
            the other files stay.
        OSError: the folder cannot be written.
    """
    with ThreadPoolExecutor(REQUESTS) as requests, Threads(_FILES) as threads:
        fetcher = _Fetcher(storage, folder, bar, requests, threads.stopped)
        threads.run(fetcher.fetch, files)


@dataclass(frozen=True)
class _Fetcher:
    storage: Storage
    folder: Path
    bar: tqdm
    requests: ThreadPoolExecutor
    stopped: threading.Event

    def fetch(self, file: PackFile) -> None:
        """Complete ``file``, from the start where it has no checksum or what is there is wrong."""
        path = self.folder / file.name
        have = regular_size(path)
        if have is None or have > file.size or file.sha256 is None:
            path.unlink(missing_ok=True)
            have = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o666), "r+b") as local:
            digest = self._complete(file, local)
            if have and digest != file.sha256 and not self.stopped.is_set():
                self.bar.update(-file.size)
                local.truncate(0)
                local.seek(0)
                digest = self._complete(file, local)
            local.flush()
            os.fsync(local.fileno())
        if file.sha256 not in (None, digest) and not self.stopped.is_set():
            path.unlink()
            raise PackError(
                f"{self.storage.url}/{file.name} does not match its checksum in the manifest; "
                "remove it there, push an intact pack, and rerun the same command"
            )

    def _complete(self, file: PackFile, local: BinaryIO) -> str:
        """Read what is there, append what is missing, and return the sha256 (hex) of both."""
        digest = hashlib.sha256()
        have = 0
        while chunk := local.read(CHUNK):
            digest.update(chunk)
            self.bar.update(len(chunk))
            have += len(chunk)
        for content in self._ranges(file, have):
            local.write(content)
            digest.update(content)
            self.bar.update(len(content))
        return digest.hexdigest()

    def _ranges(self, file: PackFile, start: int) -> Iterator[bytes]:
        """The bytes of ``file`` from ``start`` on, in order; ends early when told to stop."""
        requested: deque[Future[bytes]] = deque()
        try:
            while not self.stopped.is_set() and (requested or start < file.size):
                while start < file.size and len(requested) < _AHEAD:
                    end = min(start + _RANGE, file.size)
                    requested.append(self.requests.submit(self.storage.read, file.name, start, end))
                    start = end
                yield requested.popleft().result()
        finally:
            for future in requested:
                future.cancel()
