"""Copying a pack to a node's own disk."""

import fcntl
import hashlib
import shutil
from pathlib import Path

from tqdm import tqdm

from runtime.errors import PackError
from sharding.format.files import atomic_file
from sharding.format.manifest import FILE_NAME, Manifest

_CHUNK = 4 * 1024**2


def stage(pack: Path, local: Path) -> bool:
    """Copy ``pack`` to the folder ``local``, which appears when it is whole and checked.

    Of several processes on a node one copies and the others wait for it. A copy that was cut short
    is continued.

    Returns:
        Whether anything was copied; False when ``local`` already was this pack.

    Raises:
        PackError: ``pack`` is no pack or damaged, ``local`` is something else, or the disk is
            too small or cannot be written.
    """
    manifest = Manifest.load(pack)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.with_name(f".{local.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _stage(pack, local, manifest)
    except OSError as error:
        raise PackError(
            f"cannot copy {pack} to {local}: {error.strerror}; mend this and run again to go on"
        ) from error


def _stage(pack: Path, local: Path, manifest: Manifest) -> bool:
    if local.exists():
        if (local / FILE_NAME).exists() and Manifest.load(local) == manifest:
            return False
        raise PackError(f"{local} exists and is not a copy of {pack}; remove it or choose another")
    partial = local.with_name(f".{local.name}.staging")
    partial.mkdir(exist_ok=True)
    for leftover in partial.glob(".*.tmp"):
        leftover.unlink()
    if (partial / FILE_NAME).exists() and Manifest.load(partial) != manifest:
        shutil.rmtree(partial)
        partial.mkdir()
    manifest.save(partial)
    sha256 = {info.name: info.sha256 for info in manifest.shards}
    sizes = {path.name: path.stat().st_size for path in sorted(pack.iterdir()) if path.is_file()}
    sizes.pop(FILE_NAME)
    if missing := sorted(set(sha256) - set(sizes)):
        raise PackError(f"{pack} lacks {missing[0]}; run `python -m sharding verify {pack}`")
    whole = {name for name, size in sizes.items() if _size(partial / name) == size}
    needed = sum(size for name, size in sizes.items() if name not in whole)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise PackError(
            f"{local.parent} has {free / 1e9:.1f} GB free, the copy needs {needed / 1e9:.1f} GB; "
            "make room or choose another disk"
        )
    with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, disable=None) as bar:
        for name in sizes:
            digest = _hash(partial / name, bar) if name in whole else None
            if digest is None or digest != sha256.get(name, digest):
                digest = _copy(pack / name, partial / name, bar)
            if digest != sha256.get(name, digest):
                raise PackError(
                    f"{pack / name} is damaged; run `python -m sharding verify {pack} --repair`"
                )
    partial.rename(local)
    return True


def _copy(source: Path, target: Path, bar: tqdm) -> str:
    """Copy a file; returns the sha256 (hex) of what was read."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, atomic_file(target) as writing:
        while chunk := reading.read(_CHUNK):
            writing.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _hash(path: Path, bar: tqdm) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
