"""Packs a data set: workers write the shards; rejects, index and manifest follow."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runtime.errors import PackError
from sharding.format.index import write_index
from sharding.format.manifest import Manifest, ShardInfo
from sharding.format.rejects import FILE_NAME as REJECTS
from sharding.format.rejects import Reject, write_rejects
from sharding.listing import Listing, write_listing
from sharding.session import LISTING, WORK, Part, packing_session
from sharding.shard import Progress, Shard, ShardTask
from sharding.shard_plan import PackOptions, PackSpec
from sharding.sources.dataset import Dataset

_TOLERATED_REJECTS, _TOLERATED_SHARE = 10, 0.001

Executor = Callable[[ShardTask, Iterable[int]], Iterator[Progress]]


@dataclass(frozen=True)
class Preview:
    """What a run would pack.

    Attributes:
        files: number of listed files.
        bytes: their total size.
        rejects: how many of them are empty or unreadable and will be rejected.
        shards: number of shards.
    """

    files: int
    bytes: int
    rejects: int
    shards: int


def pack(
    dataset: Dataset,
    out: Path,
    options: PackOptions,
    execute: Executor,
    max_rejects: float | None = None,
) -> Manifest:
    """Pack ``dataset`` into the folder ``out``.

    The same call resumes an interrupted run, keeping its complete shards. If the pack is already
    complete, nothing is written.

    Args:
        execute: writes shards and periodically yields the progress so far.
        max_rejects: fraction of the files, 0 .. 1, that may be rejected; None for 0.001, or ten
            files if that is more.

    Raises:
        PackError: ``out`` holds a pack of a different tree or with different options, another
            process is writing into it, a source has changed, too many images were rejected, the
            disk is full, or a worker died.
    """
    with packing_session(out) as complete:
        if complete:
            _expect_packed(dataset, options, out, complete)
            return complete
        listing = _write_shards(dataset, out, options, execute)
        return _finish(out, listing, max_rejects)


def pack_part(
    dataset: Dataset, out: Path, options: PackOptions, execute: Executor, part: Part
) -> Manifest | None:
    """Write the shards of one ``part``; once all parts are written, ``merge`` completes the pack.

    Returns:
        The manifest if the pack is already complete, else None.

    Raises:
        PackError: as ``pack``.
    """
    with packing_session(out, part) as complete:
        if complete:
            _expect_packed(dataset, options, out, complete)
        else:
            _write_shards(dataset, out, options, execute, part)
        return complete


def merge(out: Path, max_rejects: float | None = None) -> Manifest:
    """Complete a pack whose parts are all written; does nothing if it is already complete.

    Raises:
        PackError: shards are missing; otherwise as ``pack``.
    """
    with packing_session(out) as complete:
        if complete:
            return complete
        if not (out / WORK / LISTING).exists():
            raise PackError(
                f"no pack has been started in {out}; write its parts with `pack --part` first"
            )
        return _finish(out, Listing.load(out / WORK / LISTING), max_rejects)


def preview(dataset: Dataset, options: PackOptions) -> Preview:
    """List ``dataset`` without packing it. Damaged files are not among the rejects, since only
    reading the files finds them."""
    with _listed(dataset, options) as listing:
        sizes = listing.records["size"]
        return Preview(
            len(sizes), int(sizes.sum()), int((sizes == 0).sum()), listing.plan.num_shards
        )


def _expect_packed(dataset: Dataset, options: PackOptions, out: Path, manifest: Manifest) -> None:
    """Raise PackError, naming what differs, unless ``dataset`` and ``options`` give the pack in
    ``out``, whose manifest is ``manifest``."""
    with _listed(dataset, options) as listing:
        remedy = f"choose a different --out, or remove {out} to pack again"
        if changes := PackSpec.of(manifest).changes(listing.plan.spec):
            raise PackError(
                f"{out} is a complete pack with different {', '.join(changes)}; {remedy}"
            )
        if source := _modified_later(listing, out, manifest):
            raise PackError(
                f"{source} has changed since {out} was packed, or the tree was copied without its "
                f"times (`cp -a` keeps them); {remedy}"
            )


def _modified_later(listing: Listing, out: Path, manifest: Manifest) -> str | None:
    """The source of a sample that was modified after its shard was written, or None."""
    for number, info in enumerate(manifest.shards):
        samples = listing.shard(number)
        newest = int(samples[np.argmax(listing.modified[samples])])
        try:
            written = (out / info.name).stat().st_mtime_ns
        except OSError as error:
            raise PackError(
                f"cannot read {out / info.name}: {error.strerror}; run `python -m sharding verify "
                f"{out}`"
            ) from error
        if listing.modified[newest] > written:
            return listing.sample(newest).source
    return None


@contextmanager
def _listed(dataset: Dataset, options: PackOptions) -> Iterator[Listing]:
    with tempfile.TemporaryDirectory() as folder:
        yield write_listing(dataset, options, Path(folder) / LISTING)


def _write_shards(
    dataset: Dataset,
    out: Path,
    options: PackOptions,
    execute: Executor,
    part: Part | None = None,
) -> Listing:
    work = out / WORK
    if part is None and not any(work.glob("shard-*.json")):
        shutil.rmtree(work / LISTING, ignore_errors=True)  # nothing was written from it
    listing = write_listing(dataset, options, work / LISTING)
    first, step = (part.number - 1, part.count) if part else (0, 1)
    numbers = range(first, listing.plan.num_shards, step)
    total = sum(len(listing.shard(number)) for number in numbers)
    task = ShardTask(out, work, dataset.reader(work / LISTING), options.image)
    with tqdm(total=total, unit="image", disable=None) as bar:
        for done in execute(task, numbers):
            rate = done.bytes / 1e6 / max(bar.format_dict["elapsed"], 1e-3)
            bar.set_postfix_str(f"{rate:.1f} MB/s, {done.rejects} rejected", refresh=False)
            bar.update(done.images + done.rejects - bar.n)
    return listing


def _finish(out: Path, listing: Listing, max_rejects: float | None) -> Manifest:
    """Write the files that describe the shards; the manifest comes last and completes the pack."""
    infos: list[ShardInfo] = []

    def rejected() -> Iterator[Reject]:
        for shard in _shards(out, listing):
            infos.append(shard.info)
            yield from shard.rejects

    rejects = write_rejects(out, rejected())
    samples = sum(info.samples for info in infos)
    if not samples:
        _discard(out, infos)
        raise PackError(
            f"none of the {rejects.number} files could be packed, see {out / REJECTS}; "
            "is --root right?"
        )
    _check_rejects(rejects.number, samples, max_rejects, out)
    index = write_index(out, (shard.columns for shard in _shards(out, listing)))
    spec = listing.plan.spec
    manifest = Manifest(
        dataset=spec.dataset,
        classes=spec.classes,
        domains=spec.domains,
        splits=spec.splits,
        options=spec.options(),
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


def _discard(out: Path, infos: list[ShardInfo]) -> None:
    """Remove the empty shards and their listing, so that ``out`` can take a different tree."""
    for info in infos:
        (out / info.name).unlink()
        (out / info.name).with_suffix(".idx").unlink()
    shutil.rmtree(out / WORK / LISTING)


def _shards(out: Path, listing: Listing) -> Iterator[Shard]:
    for number in range(listing.plan.num_shards):
        shard = Shard.load(out, out / WORK, number)
        if shard is None:
            raise PackError(
                f"shard {number} of {listing.plan.num_shards} is not written yet; rerun the "
                "command, or the missing part"
            )
        yield shard


def _check_rejects(rejects: int, samples: int, max_rejects: float | None, out: Path) -> None:
    total = rejects + samples
    if max_rejects is None:
        limit = max(_TOLERATED_REJECTS, _TOLERATED_SHARE * total)
    else:
        limit = max_rejects * total
    if rejects > limit:
        raise PackError(
            f"{rejects} of {total} files ({rejects / total:.2%}) were rejected, see "
            f"{out / REJECTS}; rerun the same command with a larger --max-rejects to accept that"
        )
