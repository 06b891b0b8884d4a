"""Copies a pack to a node's own disk."""

import fcntl
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from runtime.errors import ConfigError, PackError
from runtime.files import atomic_file
from sharding.format import manifest as manifest_file
from sharding.format.files import open_regular, regular_size
from sharding.format.manifest import Manifest
from sharding.format.opening import open_pack
from sharding.pack_files import CHUNK, PackFile, hash_file, local_files
from sharding.remote.pack import RemotePack
from sharding.remote.url import PackUrl, is_url


class Origin(Protocol):
    """A pack that is copied. Its text form is its folder or URL, without credentials."""

    @property
    def manifest(self) -> Manifest:
        """What the pack holds, checked."""

    def files(self) -> list[PackFile]:
        """The pack's files but its manifest; PackError where one cannot be right."""

    def copy(self, files: Sequence[PackFile], folder: Path, bar: tqdm) -> None:
        """Complete ``files`` in ``folder``, which may have some of them, or parts of them, and
        check them; ``bar`` advances by their bytes.

        Raises:
            PackError: a file is damaged or cannot be read.
            OSError: the folder cannot be written.
        """


def stage(pack: Path | PackUrl, local: Path) -> bool:
    """Copy ``pack`` to the folder ``local``, which appears once the copy is complete and checked.

    If several processes of a node call this, one copies and the others wait. An interrupted copy is
    resumed. A line is printed when a copy begins and when it is complete. The pack must be one that
    ``open_pack`` accepts; only its own files are copied, not others in its folder.

    Returns:
        Whether the pack was copied; False if ``local`` already was a copy of it.

    Raises:
        ConfigError: the driver of the URL is not installed.
        PackError: ``pack`` is not a pack or is damaged, ``local`` is something else, the disk is
            full or not writable, or the storage fails.
    """
    return _stage(_LocalPack(pack) if isinstance(pack, Path) else RemotePack(pack), local)


def local_pack(pack: str, cache: Path | None, option: str, *, download: bool = True) -> Path:
    """The folder of ``pack``, a folder or a URL: for a URL, that of its copy below ``cache``, which
    is made unless it is there. The copy's name tells the pack by its fingerprint, so that another
    pack at the same URL gets another copy.

    Args:
        option: the name of the option that gives ``cache``, for the message.
        download: whether to make the copy.

    Raises:
        ConfigError: there is no ``cache``, or no copy and it is not to be made.
        PackError: as ``stage``.
    """
    if not is_url(pack):
        return Path(pack)
    url = PackUrl.parse(pack)
    if cache is None:
        raise ConfigError(
            f"{url} is remote; give {option} FOLDER, a folder on this node's own disk to copy it to"
        )
    origin = RemotePack(url)
    local = cache.absolute() / f"{url.name}-{origin.manifest.fingerprint[:12]}"
    if not (download or local.exists()):
        raise ConfigError(
            f"a dry run downloads nothing; first run `python -m sharding stage {url} {local}`"
        )
    _stage(origin, local)
    return local


def _stage(origin: Origin, local: Path) -> bool:
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.with_name(f".{local.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _copy_pack(origin, local)
    except OSError as error:
        raise PackError(
            f"cannot copy {origin} to {local}: {error.strerror}; fix this and rerun the same "
            "command to resume"
        ) from error


def _copy_pack(origin: Origin, local: Path) -> bool:
    manifest = origin.manifest
    if local.exists():
        if (local / manifest_file.FILE_NAME).exists() and open_pack(local).manifest == manifest:
            return False
        raise PackError(
            f"{local} exists and is not a copy of {origin}; remove it or choose a different folder"
        )
    files = origin.files()
    partial = local.with_name(f".{local.name}.staging")
    partial.mkdir(exist_ok=True)
    for found in partial.iterdir():
        if found.name not in {file.name for file in files}:
            found.unlink()  # left by a copy of a different pack, or by one that was killed
    needed = sum(file.size - _kept(partial, file) for file in files)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise PackError(
            f"{local.parent} has {free / 1e9:.1f} GB free, the copy needs {needed / 1e9:.1f} GB; "
            "make room or choose a different disk"
        )
    print(f"{local}: copying {tqdm.format_sizeof(needed, 'B')} from {origin}", flush=True)
    with tqdm(total=sum(f.size for f in files), unit="B", unit_scale=True, disable=None) as bar:
        origin.copy(files, partial, bar)
    manifest.save(partial)
    partial.rename(local)
    print(f"{local}: copied and checked", flush=True)
    return True


def _kept(partial: Path, file: PackFile) -> int:
    """Bytes of ``file`` that are there already."""
    size = regular_size(partial / file.name) or 0
    return size if size <= file.size else 0


class _LocalPack:
    """The pack in the folder ``path``; PackError where ``open_pack`` does not accept it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._contents = open_pack(path)
        self.manifest = self._contents.manifest

    def __str__(self) -> str:
        return str(self._path)

    def files(self) -> list[PackFile]:
        return local_files(self._contents)

    def copy(self, files: Sequence[PackFile], folder: Path, bar: tqdm) -> None:
        for file in files:
            _ensure_copied(self._path, folder, file, bar)


def _ensure_copied(pack: Path, partial: Path, file: PackFile, bar: tqdm) -> None:
    """Copy ``file`` unless an earlier run did; always copy a file without a checksum."""
    target = partial / file.name
    if file.sha256 and regular_size(target) == file.size and hash_file(target, bar) == file.sha256:
        return
    digest = _copy(pack / file.name, target, bar)
    if file.sha256 and digest != file.sha256:
        raise PackError(
            f"{pack / file.name} is damaged; run `python -m sharding verify {pack} --repair "
            "--root TREE`"
        )


def _copy(source: Path, target: Path, bar: tqdm) -> str:
    """Copy a file and return the sha256 (hex) of its content."""
    digest = hashlib.sha256()
    with open_regular(source) as reading, atomic_file(target) as writing:
        while chunk := reading.read(CHUNK):
            writing.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
