"""Packing a data set: shards by worker processes, then the index, the rejects, the manifest."""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from runtime.errors import PackError
from sharding.format.index import write_index
from sharding.format.manifest import FILE_NAME, Manifest, ShardInfo
from sharding.format.rejects import FILE_NAME as REJECTS
from sharding.format.rejects import write_rejects
from sharding.format.strict_json import printable
from sharding.listing import Listing, PackOptions, write_listing
from sharding.shard import Shard, ShardTask
from sharding.sources.dataset import Dataset

WORK = ".work"
_TOLERATED_REJECTS, _TOLERATED_SHARE = 10, 0.001

Executor = Callable[[ShardTask, Iterable[int]], Iterator[tuple[int, ...]]]


@dataclass(frozen=True)
class Part:
    """Slice ``number`` of ``count``, from 1 on."""

    number: int
    count: int


def pack(
    dataset: Dataset,
    out: Path,
    options: PackOptions,
    execute: Executor,
    max_rejects: float | None = None,
) -> Manifest:
    """Pack ``dataset`` into the folder ``out``.

    A run that was cut short is finished by the same call; its whole shards are kept.

    Args:
        execute: writes shards; yields the images, bytes and rejects so far.
        max_rejects: the share of the files, 0 .. 1, that may be rejected; None for one in a
            thousand, or ten files where that is more.

    Raises:
        PackError: ``out`` holds a finished pack or one begun with other options, another process
            is writing into it, too many images were rejected, the disk is full, a worker died.
    """
    begun = (out / WORK).exists()
    with written(out), locked(out):
        if (out / FILE_NAME).exists():
            return _finished(out, begun)
        listing = _write_shards(dataset, out, options, execute, Part(1, 1))
        return _close(out, listing, max_rejects)


def pack_part(
    dataset: Dataset, out: Path, options: PackOptions, execute: Executor, part: Part
) -> None:
    """Write the shards of one ``part``; when all parts are written, ``merge`` closes the pack.

    Raises:
        PackError: as ``pack``.
    """
    begun = (out / WORK).exists()
    with written(out), locked(out, part):
        if (out / FILE_NAME).exists():
            _finished(out, begun)
            return
        _write_shards(dataset, out, options, execute, part)


def merge(out: Path, max_rejects: float | None = None) -> Manifest:
    """Close a pack of which all parts are written.

    Raises:
        PackError: shards are missing, or as ``pack``.
    """
    begun = (out / WORK).exists()
    if not begun and not (out / FILE_NAME).exists():
        raise PackError(f"{out} holds no begun pack; write its parts with `pack --part` first")
    with written(out), locked(out):
        if (out / FILE_NAME).exists():
            return _finished(out, begun)
        return _close(out, Listing.load(out / WORK / "listing"), max_rejects)


def plan(dataset: Dataset, options: PackOptions) -> dict[str, Any]:
    """What packing ``dataset`` would write: samples, shards, source bytes. Writes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        listing = write_listing(dataset, options, Path(folder) / "listing")
        return {
            "samples": len(listing.records),
            "shards": listing.num_shards,
            "bytes": int(listing.records["size"].sum()),
        }


def _finished(out: Path, begun: bool) -> Manifest:
    """What there is to do in a finished pack: tidy up where a run was killed at its very end."""
    shutil.rmtree(out / WORK)
    if not begun:
        raise PackError(f"{out} holds a finished pack; choose another --out or remove it first")
    return Manifest.load(out)


@contextmanager
def written(out: Path) -> Iterator[None]:
    """Make the folder ``out`` and its folder ``WORK``.

    Raises:
        PackError: for an OSError inside: what cannot be written is the user's to mend.
    """
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise PackError(
            f"cannot write to {out}: {error.strerror}; mend this and run the same command again "
            "to go on"
        ) from error


@contextmanager
def locked(out: Path, part: Part | None = None) -> Iterator[None]:
    """Keep other runs out of the folder; parts keep out each other only where they are the same.

    Raises:
        PackError: another process has the lock.
    """
    work = out / WORK
    locks = [("lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX)]
    if part:
        locks.append((f"part-{part.number}-of-{part.count}.lock", fcntl.LOCK_EX))
    with ExitStack() as stack:
        for name, kind in locks:
            lock = stack.enter_context((work / name).open("w"))
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PackError(f"another process is writing into {out}; wait for it") from error
        if part is None:
            for leftover in out.glob(".*.tmp"):  # of a run that was killed
                leftover.unlink()
        yield


def _write_shards(
    dataset: Dataset, out: Path, options: PackOptions, execute: Executor, part: Part
) -> Listing:
    listing = write_listing(dataset, options, out / WORK / "listing")
    numbers = range(part.number - 1, listing.num_shards, part.count)
    starts = listing.plan["starts"]
    total = sum(starts[number + 1] - starts[number] for number in numbers)
    task = ShardTask(out, out / WORK, dataset.read, options.image)
    with tqdm(total=total, unit="image", disable=None) as bar:
        for images, size, rejects in execute(task, numbers):
            rate = size / 1e6 / max(bar.format_dict["elapsed"], 1e-3)
            bar.set_postfix_str(f"{rate:.1f} MB/s, {rejects} rejected", refresh=False)
            bar.update(images + rejects - bar.n)
    return listing


def _close(out: Path, listing: Listing, max_rejects: float | None) -> Manifest:
    """Write what describes the shards; the manifest comes last and makes the pack."""
    infos: list[ShardInfo] = []

    def rejected() -> Iterator[dict[str, str]]:
        for shard in _shards(out, listing):
            infos.append(shard.info)
            yield from shard.rejects

    rejects = write_rejects(out, rejected())
    samples = sum(info.samples for info in infos)
    _judge(rejects.number, samples, max_rejects, out)
    index = write_index(out, (shard.columns for shard in _shards(out, listing)))
    names = ("shard_size", "shuffle_seed", "image", "listing")
    manifest = Manifest(
        dataset=listing.plan["dataset"],
        classes=tuple(map(printable, listing.plan["classes"])),
        domains=tuple(map(printable, listing.plan["domains"])),
        splits=tuple(map(printable, listing.plan["splits"])),
        options={name: listing.plan[name] for name in names},
        samples=samples,
        bytes=sum(info.bytes for info in infos),
        rejects=rejects.number,
        shards=tuple(infos),
        index=index,
        rejects_sha256=rejects.sha256,
    )
    manifest.save(out)
    shutil.rmtree(out / WORK)
    return manifest


def _shards(out: Path, listing: Listing) -> Iterator[Shard]:
    for number in range(listing.num_shards):
        shard = Shard.load(out / WORK, out, number)
        if shard is None:
            raise PackError(
                f"shard {number} of {listing.num_shards} is not written yet; run the command or "
                "the part that lacks again"
            )
        yield shard


def _judge(rejects: int, samples: int, max_rejects: float | None, out: Path) -> None:
    total = rejects + samples
    if not samples:
        raise PackError(
            f"none of the {total} files could be packed, see {out / REJECTS}; is --root right?"
        )
    if max_rejects is None:
        limit = max(_TOLERATED_REJECTS, _TOLERATED_SHARE * total)
    else:
        limit = max_rejects * total
    if rejects > limit:
        raise PackError(
            f"{rejects} of {total} files ({rejects / total:.2%}) were rejected, see "
            f"{out / REJECTS}; run the same command with a larger --max-rejects to accept that"
        )
