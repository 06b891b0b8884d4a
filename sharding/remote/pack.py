"""A pack in remote storage: its manifest, its files, and a copy of them."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from runtime.errors import PackError
from sharding.dali_index import dali_index_problem
from sharding.format import index as index_file
from sharding.format import manifest as manifest_file
from sharding.format import rejects as rejects_file
from sharding.format.files import MalformedError
from sharding.format.index import Index
from sharding.format.manifest import Manifest
from sharding.pack_files import PackFile, file_names, pack_files
from sharding.remote.download import download
from sharding.remote.storage import REQUESTS, Storage
from sharding.remote.threads import Threads
from sharding.remote.url import PackUrl

_ADVICE = "push an intact pack, and rerun the same command"


class RemotePack:
    """The pack at ``url``; only its manifest is read.

    Raises:
        ConfigError: the driver is not installed.
        PackError: there is no complete pack, or it cannot be read.
    """

    def __init__(self, url: PackUrl) -> None:
        self._storage = Storage(url)
        manifest = read_manifest(self._storage)
        if manifest is None:
            raise PackError(
                f"{url} is not a complete pack (no {manifest_file.FILE_NAME}); check the URL, or "
                f"run or rerun `python -m sharding push PACK {url}`"
            )
        self.manifest = manifest

    def __str__(self) -> str:
        return str(self._storage.url)

    def files(self) -> list[PackFile]:
        """The pack's files but its manifest.

        Raises:
            PackError: one is missing or has a size that cannot be right.
        """
        try:
            return pack_files(self.manifest, sizes(self._storage, self.manifest).get)
        except MalformedError as error:
            raise PackError(f"{self}: {error}; {_ADVICE}") from error

    def copy(self, files: Sequence[PackFile], folder: Path, bar: tqdm) -> None:
        """Fetch ``files`` into ``folder``; the index and the rejects first, and when they are
        right, the shards.

        Raises:
            PackError: a file is damaged, or the storage fails.
            OSError: the folder cannot be written.
        """
        first = (index_file.FILE_NAME, rejects_file.FILE_NAME)
        download(self._storage, [file for file in files if file.name in first], folder, bar)
        if problem := rejects_file.rejects_problem(folder, self.manifest):
            raise PackError(f"{self}: {problem}; {_ADVICE}")
        try:
            index = Index.read(folder, self.manifest)
            if problems := index.problems(self.manifest):
                raise MalformedError(problems[0])
        except MalformedError as error:
            raise PackError(f"{self}/{first[0]} is damaged: {error}; {_ADVICE}") from error
        download(self._storage, [file for file in files if file.name not in first], folder, bar)
        if problem := dali_index_problem(folder, self.manifest, index):
            raise PackError(f"{self}: {problem}; remove it there, {_ADVICE}")


def read_manifest(storage: Storage) -> Manifest | None:
    """The manifest in ``storage``; None where there is none.

    Raises:
        PackError: it is damaged or cannot be read.
    """
    size = storage.size(manifest_file.FILE_NAME)
    if size is None:
        return None
    end = min(size, manifest_file.MAX_BYTES + 1)
    if end > 1:  # a server that ignores ranges is found before it sends a shard again and again
        storage.read(manifest_file.FILE_NAME, 0, 1)
    content = storage.read(manifest_file.FILE_NAME, 0, end)
    return manifest_file.parse_manifest(content, f"{storage.url}/{manifest_file.FILE_NAME}")


def sizes(storage: Storage, manifest: Manifest) -> dict[str, int | None]:
    """The bytes of each of the pack's files in ``storage``; None where there is none."""
    names = file_names(manifest)
    with Threads(REQUESTS) as threads:
        return dict(zip(names, threads.run(storage.size, names), strict=True))
