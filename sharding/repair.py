"""Rebuilds the damaged files of a pack from the tree that was packed."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from runtime.errors import PackError
from sharding.format import index as index_file
from sharding.format import rejects as rejects_file
from sharding.format.index import IndexColumns, write_index
from sharding.format.manifest import Manifest, ShardInfo, dali_index_name
from sharding.format.rejects import Reject, write_rejects
from sharding.listing import write_listing
from sharding.session import LISTING, WORK, locked
from sharding.shard import ShardTask
from sharding.shard_plan import PackSpec
from sharding.sources.dataset import Dataset
from sharding.workers import processes, submit


def repair(pack: Path, dataset: Dataset, damaged: set[str], workers: int = 1) -> None:
    """Rebuild the files of ``pack`` whose names are in ``damaged`` from its tree, ``dataset``.

    To rebuild the index or the rejects, all shards are packed again, but only damaged ones are
    replaced. Files that do not belong to the pack are left alone.

    Raises:
        PackError: the tree is not the one that was packed, or no longer gives the same shards;
            another process is writing into ``pack``, a worker died, or the disk is full.
    """
    manifest = Manifest.load(pack)
    spec = PackSpec.of(manifest)
    with locked(pack):
        work = pack / WORK
        shutil.rmtree(work / LISTING, ignore_errors=True)  # left by a repair that was killed
        try:
            plan = write_listing(dataset, spec.pack_options(), work / LISTING).plan
            if plan.spec.listing != spec.listing or plan.num_shards != len(manifest.shards):
                raise PackError(
                    f"{pack} was packed from a tree with different files, or with options of its "
                    "data set; repair it by the command that packed it, with --repair added"
                )
            task = ShardTask(work, work, dataset.reader(work / LISTING), spec.image)
            _write(pack, manifest, damaged, task, workers)
        finally:
            shutil.rmtree(work)


def _write(
    pack: Path, manifest: Manifest, damaged: set[str], task: ShardTask, workers: int
) -> None:
    def rebuilt(numbers: Sequence[int]) -> Iterator[IndexColumns]:
        with processes(workers) as pool:
            for number, future in zip(numbers, submit(pool, task.write, numbers), strict=True):
                shard = future.result()
                _replace(pack, task.pack, damaged, shard.info, manifest.shards[number])
                rejects.extend(shard.rejects)
                yield shard.columns

    rejects: list[Reject] = []
    if damaged.isdisjoint({index_file.FILE_NAME, rejects_file.FILE_NAME}):
        names = [{info.name, dali_index_name(info.name)} for info in manifest.shards]
        for _ in rebuilt([number for number, pair in enumerate(names) if pair & damaged]):
            pass
        return
    index = write_index(pack, rebuilt(range(len(manifest.shards))))
    found = write_rejects(pack, rejects)
    if manifest.index is not None:  # a different pyarrow or Pillow may write different bytes
        replace(manifest, index=index, rejects_sha256=found.sha256).save(pack)


def _replace(
    pack: Path, work: Path, damaged: set[str], rebuilt: ShardInfo, original: ShardInfo
) -> None:
    """Move the shard that was ``rebuilt`` in the folder ``work`` into ``pack`` if the ``original``
    is damaged, and its DALI index in any case: that cannot be checked without the pack's index."""
    if rebuilt != original:
        raise PackError(
            f"{original.name} rebuilt from the tree differs from the original (changed files, or "
            "a different version of Pillow); pack again into a new folder"
        )
    tar, idx = original.name, dali_index_name(original.name)
    if tar in damaged:
        (work / tar).replace(pack / tar)
    else:
        (work / tar).unlink()
    (work / idx).replace(pack / idx)
