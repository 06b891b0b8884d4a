"""Packing a data set: shards by worker processes, then the index, the rejects, the manifest."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from sharding.dataset import Dataset
from sharding.errors import PackError
from sharding.files import atomic_file
from sharding.index import write_index
from sharding.listing import Listing, PackOptions, write_listing
from sharding.manifest import FILE_NAME, Manifest
from sharding.shard import Shard, write_shard

_WORK = ".work"
REJECTS = "rejects.jsonl"


def pack(dataset: Dataset, out: Path, options: PackOptions, workers: int) -> Manifest:
    """Pack ``dataset`` into the folder ``out`` with ``workers`` processes.

    A run that was cut short is finished by the same call; its whole shards are kept.

    Raises:
        PackError: ``out`` holds a finished pack or one begun with other options, another process
            is writing into it, no image could be packed, or a worker died.
    """
    if (out / FILE_NAME).exists():
        raise PackError(f"{out} holds a finished pack; choose another --out or remove it first")
    work = out / _WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    with _locked(work):
        for leftover in out.glob(".*.tmp"):  # of a run that was killed
            leftover.unlink()
        listing = write_listing(dataset, options, work / "listing")
        _write_shards(dataset, out, listing, options, workers)
        manifest = _close(dataset, out, listing)
        shutil.rmtree(work)
    return manifest


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PackError(
                f"another process is packing into {work.parent}; wait for it"
            ) from error
        yield


def _write_shards(
    dataset: Dataset, out: Path, listing: Listing, options: PackOptions, workers: int
) -> None:
    rejects = written = 0
    with (
        ProcessPoolExecutor(workers) as pool,
        tqdm(total=len(listing.records), unit="image", disable=None) as bar,
    ):
        tasks = [
            pool.submit(write_shard, out, out / _WORK, dataset.read, options.image, number)
            for number in range(listing.num_shards)
        ]
        try:
            for task in as_completed(tasks):
                samples, rejected, size = task.result()
                rejects, written = rejects + rejected, written + size
                bar.update(samples + rejected)
                rate = written / 1e6 / max(bar.format_dict["elapsed"], 1e-3)
                bar.set_postfix_str(f"{rate:.1f} MB/s, {rejects} rejected")
        except BrokenProcessPool as error:
            raise PackError(
                "a worker process died (out of memory?); run the same command again to go on"
            ) from error
        except OSError as error:
            pool.shutdown(cancel_futures=True)
            raise PackError(
                f"cannot write to {out}: {error.strerror}; make room and run the same command "
                "again to go on"
            ) from error


def _close(dataset: Dataset, out: Path, listing: Listing) -> Manifest:
    """Write what describes the shards; the manifest comes last and makes the pack."""
    infos, rejects = [], 0

    def shards() -> Iterator[Shard]:
        for number in range(listing.num_shards):
            shard = Shard.load(out / _WORK, out, number)
            if shard is None:
                raise PackError(f"shard {number} of {out} is gone; run the same command again")
            yield shard

    with atomic_file(out / REJECTS) as file:
        for shard in shards():
            infos.append(shard.info)
            rejects += len(shard.rejects)
            file.writelines(json.dumps(reject).encode() + b"\n" for reject in shard.rejects)
    samples = sum(info.samples for info in infos)
    if not samples:
        raise PackError(
            f"none of the {rejects} files could be packed, see {out / REJECTS}; is --root right?"
        )
    write_index(out, (shard.columns for shard in shards()))
    manifest = Manifest(
        dataset=dataset.name,
        classes=dataset.classes,
        domains=dataset.domains,
        splits=dataset.splits,
        options={name: listing.plan[name] for name in ("shard_size", "shuffle_seed", "image")},
        samples=samples,
        bytes=sum(info.bytes for info in infos),
        rejects=rejects,
        shards=tuple(infos),
    )
    manifest.save(out)
    return manifest
