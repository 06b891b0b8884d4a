"""Writing a pack to remote storage."""

import contextlib
from pathlib import Path

from tqdm import tqdm

from runtime.errors import ConfigError, PackError
from sharding.format.manifest import FILE_NAME, Manifest, manifest_content
from sharding.format.opening import open_pack
from sharding.pack_files import PackFile, hash_file, local_files
from sharding.remote.pack import read_manifest, sizes
from sharding.remote.storage import Storage
from sharding.remote.threads import Threads
from sharding.remote.url import DRIVERS, PackUrl

_FILES = 4  # at the same time; drivers split large ones into parts
_BEGUN = ".pushing"  # holds the fingerprint of the pack whose files are being written


def check_can_push(url: PackUrl) -> None:
    """Raise ConfigError unless packs can be written to URLs such as ``url``."""
    if not url.driver.can_push:
        able = [scheme for scheme, driver in DRIVERS.items() if driver.can_push]
        raise ConfigError(
            f"packs cannot be pushed to {url.scheme}://; use {', '.join(able)}, or upload the "
            f"folder with the provider's own tool, {FILE_NAME} last"
        )


def push(pack: Path, url: PackUrl) -> bool:
    """Write the pack in the folder ``pack`` to ``url``, the manifest last.

    A push that was cut short is continued: objects appear when they are complete, so those of the
    right size are kept if they are of the same pack. Objects of a complete pack that are missing or
    have a different size are replaced.

    Returns:
        Whether anything was written; False when the pack already was there.

    Raises:
        ConfigError: the driver is not installed, or cannot write.
        PackError: ``pack`` is not a pack or damaged, ``url`` has another pack, or the storage
            fails.
    """
    check_can_push(url)
    contents = open_pack(pack)
    manifest, storage = contents.manifest, Storage(url)
    there = read_manifest(storage)
    if there not in (None, manifest):
        raise PackError(f"{url} has another pack; remove it or choose another URL")
    files = local_files(contents)
    missing = _missing(storage, manifest, files, complete=there is not None)
    if there is not None and not missing:
        return False
    with tqdm(total=sum(f.size for f in files), unit="B", unit_scale=True, disable=None) as bar:
        bar.update(sum(file.size for file in set(files) - set(missing)))
        with Threads(_FILES) as threads:
            threads.run(lambda file: _upload(storage, pack, file, bar), missing)
    found = sizes(storage, manifest)
    for file in files:
        if found[file.name] != file.size:
            raise PackError(f"{url}/{file.name} was changed meanwhile; rerun the same command")
    storage.write(FILE_NAME, manifest_content(manifest))
    with contextlib.suppress(PackError):  # who may not delete has pushed nevertheless
        storage.remove(_BEGUN)
    return True


def _missing(
    storage: Storage, manifest: Manifest, files: list[PackFile], *, complete: bool
) -> list[PackFile]:
    """The files that an earlier push of this pack, ``complete`` or interrupted, has not written, or
    that have been lost since."""
    fingerprint = manifest.fingerprint.encode()
    if complete or _has_begun(storage, fingerprint):
        found = sizes(storage, manifest)
        return [file for file in files if found[file.name] != file.size]
    storage.write(_BEGUN, fingerprint)
    return files


def _has_begun(storage: Storage, fingerprint: bytes) -> bool:
    size = storage.size(_BEGUN)
    return size == len(fingerprint) and storage.read(_BEGUN, 0, size) == fingerprint


def _upload(storage: Storage, pack: Path, file: PackFile, bar: tqdm) -> None:
    with tqdm(disable=True) as silent:
        if file.sha256 not in (None, hash_file(pack / file.name, silent)):
            raise PackError(
                f"{pack / file.name} is damaged; run `python -m sharding verify {pack} --repair "
                "--root TREE`"
            )
    storage.upload(file.name, pack / file.name)
    bar.update(file.size)
