"""Copies a pack to a node's own disk."""

import fcntl
import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from runtime.errors import PackError
from runtime.files import atomic_file
from sharding.format import index as index_file
from sharding.format import manifest as manifest_file
from sharding.format import rejects as rejects_file
from sharding.format.files import open_regular, regular_size
from sharding.format.manifest import Manifest, dali_index_name
from sharding.format.opening import open_pack
from sharding.format.tar import max_index_bytes

_CHUNK = 4 * 1024**2


class _File(NamedTuple):
    """A file to copy: its size in bytes, and its sha256 (hex) if the manifest has one."""

    name: str
    size: int
    sha256: str | None


def stage(pack: Path, local: Path) -> bool:
    """Copy ``pack`` to the folder ``local``, which appears once the copy is complete and checked.

    If several processes of a node call this, one copies and the others wait. An interrupted copy is
    resumed. The pack must be one that ``open_pack`` accepts; only its own files are copied, not
    others in its folder.

    Returns:
        Whether the pack was copied; False if ``local`` already was a copy of it.

    Raises:
        PackError: ``pack`` is not a pack or is damaged, ``local`` is something else, or the disk is
            full or not writable.
    """
    manifest = open_pack(pack).manifest
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.with_name(f".{local.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _stage(pack, local, manifest)
    except OSError as error:
        raise PackError(
            f"cannot copy {pack} to {local}: {error.strerror}; fix this and rerun the same command "
            "to resume"
        ) from error


def _stage(pack: Path, local: Path, manifest: Manifest) -> bool:
    if local.exists():
        if (local / manifest_file.FILE_NAME).exists() and open_pack(local).manifest == manifest:
            return False
        raise PackError(
            f"{local} exists and is not a copy of {pack}; remove it or choose a different folder"
        )
    partial = local.with_name(f".{local.name}.staging")
    partial.mkdir(exist_ok=True)
    files = _files(pack, manifest)
    for found in partial.iterdir():
        if found.name not in {file.name for file in files}:
            found.unlink()  # left by a copy of a different pack, or by one that was killed
    needed = sum(file.size for file in files if regular_size(partial / file.name) != file.size)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise PackError(
            f"{local.parent} has {free / 1e9:.1f} GB free, the copy needs {needed / 1e9:.1f} GB; "
            "make room or choose a different disk"
        )
    with tqdm(total=sum(f.size for f in files), unit="B", unit_scale=True, disable=None) as bar:
        for file in files:
            _ensure_copied(pack, partial, file, bar)
    manifest.save(partial)
    partial.rename(local)
    return True


def _files(pack: Path, manifest: Manifest) -> list[_File]:
    """The files of the pack except its manifest."""
    if problem := rejects_file.rejects_problem(pack, manifest):
        raise PackError(f"{pack}: {problem}; run `python -m sharding verify {pack}`")
    files = [
        _file(pack, index_file.FILE_NAME, manifest.index.sha256 if manifest.index else None),
        _file(pack, rejects_file.FILE_NAME, manifest.rejects_sha256),
    ]
    for info in manifest.shards:
        files.append(_file(pack, info.name, info.sha256))
        dali_index = _file(pack, dali_index_name(info.name), None)
        if dali_index.size > max_index_bytes(info.samples):
            raise PackError(
                f"{pack}: {dali_index.name} is damaged; run `python -m sharding verify {pack}`"
            )
        files.append(dali_index)
    return files


def _file(pack: Path, name: str, sha256: str | None) -> _File:
    size = regular_size(pack / name)
    if size is None:
        raise PackError(f"{pack} lacks {name}; run `python -m sharding verify {pack}`")
    return _File(name, size, sha256)


def _ensure_copied(pack: Path, partial: Path, file: _File, bar: tqdm) -> None:
    """Copy ``file`` unless an earlier run did; always copy a file without a checksum."""
    target = partial / file.name
    if file.sha256 and regular_size(target) == file.size and _hash(target, bar) == file.sha256:
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
        while chunk := reading.read(_CHUNK):
            writing.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _hash(path: Path, bar: tqdm) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
