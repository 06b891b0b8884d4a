"""Packing in this process and in a process of its own, in shards of 40 KB."""

import sys

from sharding import packing
from sharding.shard_plan import PackOptions
from sharding.sources.imagefolder import imagefolder

SHARD_SIZE = 40_000


def run_inline(task, numbers):
    for number in numbers:
        yield task.ensure(number)


def pack_inline(tree, out, **options):
    dataset = imagefolder(tree.resolve())
    return packing.pack(dataset, out, PackOptions(SHARD_SIZE), run_inline, **options)


def command(tree, out, *options):
    return [
        *(sys.executable, "-m", "sharding", "pack", "imagefolder", "--root", str(tree)),
        *("--out", str(out), "--shard-size", f"{SHARD_SIZE // 1000}KB", "--workers", "2", *options),
    ]
