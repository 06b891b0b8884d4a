"""`python -m sharding`: make packs and look after them."""

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

from runtime.command import Parser, fraction, natural, positive, run_command, size
from runtime.errors import PackError
from sharding.executors import run_dask, run_local
from sharding.format.manifest import Manifest
from sharding.images import ImageOptions
from sharding.info import print_info
from sharding.listing import PackOptions
from sharding.packing import REJECTS, Executor, Part, merge, pack, pack_part, plan
from sharding.repair import repair
from sharding.sources.demo import demo_dataset
from sharding.sources.published import DATASETS
from sharding.staging import stage
from sharding.verification import verify

_DEMO_SHARD_SIZE = 8 * 10**6


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status; 1 where ``verify`` found damage."""
    return run_command(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    return arguments.run(arguments)


def _pack(arguments: argparse.Namespace) -> int:
    options = PackOptions(
        shard_size=arguments.shard_size,
        seed=arguments.seed,
        image=ImageOptions(
            decode_check=arguments.decode_check,
            resize_short=arguments.resize_short,
            quality=arguments.quality,
            max_pixels=arguments.max_pixels,
        ),
    )
    dataset = DATASETS[arguments.dataset](arguments.root.resolve())
    if arguments.dry_run:
        planned = plan(dataset, options)
        print(
            f"{arguments.root} as {dataset.name}: {planned['samples']:,} files of "
            f"{len(dataset.classes)} classes in {len(dataset.domains)} domains, "
            f"{planned['bytes'] / 1e6:,.1f} MB, into {planned['shards']} shards; nothing written"
        )
        return 0
    out, started = arguments.out.resolve(), time.perf_counter()
    if arguments.part:
        pack_part(dataset, out, options, _executor(arguments), arguments.part)
        print(
            f"part {arguments.part.number} of {arguments.part.count} is written; when all are, "
            f"run `python -m sharding merge {arguments.out}`"
        )
        return 0
    manifest = pack(dataset, out, options, _executor(arguments), arguments.max_rejects)
    return _summary(manifest, arguments.out, time.perf_counter() - started)


def _merge(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    manifest = merge(arguments.pack.resolve(), arguments.max_rejects)
    return _summary(manifest, arguments.pack, time.perf_counter() - started)


def _demo(arguments: argparse.Namespace) -> int:
    options = PackOptions(shard_size=_DEMO_SHARD_SIZE)
    execute = partial(run_local, workers=arguments.workers)
    started = time.perf_counter()
    manifest = pack(demo_dataset(arguments.seed), arguments.out.resolve(), options, execute)
    return _summary(manifest, arguments.out, time.perf_counter() - started)


def _executor(arguments: argparse.Namespace) -> Executor:
    if arguments.executor == "local":
        return partial(run_local, workers=arguments.workers)
    if not arguments.scheduler:
        raise PackError("--executor dask needs --scheduler ADDRESS, e.g. tcp://host:8786")
    return partial(run_dask, scheduler=arguments.scheduler)


def _summary(manifest: Manifest, out: Path, seconds: float) -> int:
    print(
        f"{out}: {manifest.samples:,} images of {len(manifest.classes)} classes in "
        f"{len(manifest.domains)} domains, {len(manifest.shards)} shards, "
        f"{manifest.bytes / 1e6:,.1f} MB, in {seconds:.1f} s "
        f"({manifest.samples / seconds:,.0f} images/s)"
    )
    if manifest.rejects:
        print(f"{manifest.rejects:,} files were not packed, each is named in {out / REJECTS}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    print_info(arguments.pack)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.repair and not arguments.root:
        raise PackError("--repair needs the tree that was packed; pass it as --root TREE")
    damaged = _print_faults(arguments)
    if not damaged:
        print(f"{arguments.pack}: intact")
        return 0
    if not arguments.repair:
        return 1
    name = Manifest.load(arguments.pack).dataset
    if name not in DATASETS:
        raise PackError(f"a pack of {name} has no tree to repair it from; make it again")
    repair(arguments.pack, DATASETS[name](arguments.root.resolve()), damaged, arguments.workers)
    if _print_faults(arguments):
        return 1
    print(f"{arguments.pack}: repaired, and intact")
    return 0


def _print_faults(arguments: argparse.Namespace) -> set[str]:
    """Verify the pack; returns the names of the files at fault."""
    count, damaged = 0, set()
    for fault in verify(arguments.pack, decode=arguments.decode, workers=arguments.workers):
        print(fault.text)
        count += 1
        damaged.add(fault.file)
    if damaged:
        print(f"{arguments.pack}: {count} faults in {len(damaged)} files")
    return damaged


def _stage(arguments: argparse.Namespace) -> int:
    copied = stage(arguments.pack.resolve(), arguments.local.resolve())
    print(f"{arguments.local}: " + ("copied and checked" if copied else "is there already"))
    return 0


def _part(text: str) -> Part:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; write 1/8 … 8/8")
    return Part(int(number), int(count))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m sharding", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    packing = command("pack", _pack, "pack an image tree")
    _add_packing(packing)
    drawing = command("demo", _demo, "draw the demo data set and pack it")
    drawing.add_argument("--seed", type=int, default=0, help="of the drawings")
    drawing.add_argument("--out", type=Path, required=True, help="folder of the pack")
    merging = command("merge", _merge, "close a pack whose parts are all written")
    for accepting in (packing, merging):
        accepting.add_argument(
            "--max-rejects",
            type=fraction,
            metavar="SHARE",
            help="share of the files that may be rejected, like 0.5%% or 0.005; more fails the run "
            "at its end; by default 0.1%%, or 10 files where that is more",
        )
    verifying = command("verify", _verify, "read a pack again and name each fault")
    verifying.add_argument("--decode", action="store_true", help="decode each image as well")
    verifying.add_argument("--repair", action="store_true", help="write damaged files again")
    verifying.add_argument("--root", type=Path, help="the packed tree, for --repair")
    informing = command("info", _info, "print what a pack holds")
    staging = command("stage", _stage, "copy a pack to this node's own disk")
    for reading in (merging, verifying, informing, staging):
        reading.add_argument("pack", type=Path, help="folder of the pack")
    staging.add_argument("local", type=Path, help="folder to make")
    for working in (packing, drawing, verifying):
        working.add_argument(
            "--workers",
            type=positive,
            default=len(os.sched_getaffinity(0)),
            help="worker processes",
        )
    return parser


def _add_packing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", choices=list(DATASETS), help="layout of the tree")
    add("--root", type=Path, required=True, help="folder of the tree")
    add("--out", type=Path, required=True, help="folder of the pack")
    add(
        "--shard-size",
        type=size,
        metavar="SIZE",
        help="bytes aimed at, like 512MB; by default a sixteenth of the images, from 16MB to 512MB",
    )
    add("--seed", type=int, default=0, help="of the global shuffle (imagenet)")
    add(
        "--resize-short",
        type=natural,
        default=0,
        metavar="PIXELS",
        help="shrink images whose shorter side is larger; 0 keeps the original bytes",
    )
    add("--quality", type=positive, default=92, help="JPEG quality of shrunk images, 1 to 95")
    add("--max-pixels", type=positive, default=100_000_000, help="reject larger images undecoded")
    add(
        "--decode-check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode each image in full; without it damaged images get into the pack",
    )
    add("--executor", choices=["local", "dask"], default="local", help="who writes the shards")
    add("--scheduler", metavar="ADDRESS", help="of the Dask cluster, like tcp://host:8786")
    add("--part", type=_part, metavar="I/N", help="write only this slice, 1/N to N/N; then merge")
    add("--dry-run", action="store_true", help="print the plan and write nothing")


if __name__ == "__main__":
    sys.exit(main())
