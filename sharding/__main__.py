"""`python -m sharding`: make and maintain packs."""

import argparse
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from runtime.command import Parser, fraction, natural, positive, run_command, size
from runtime.errors import PackError
from sharding.executors import run_dask, run_local
from sharding.format.manifest import FILE_NAME, Manifest
from sharding.images import ImageOptions
from sharding.info import print_info
from sharding.packing import REJECTS, Executor, merge, pack, pack_part, preview
from sharding.repair import repair
from sharding.session import Part
from sharding.shard_plan import PackOptions
from sharding.sources.dataset import Dataset
from sharding.sources.demo import demo_dataset
from sharding.sources.files import MAX_BYTES
from sharding.sources.names import check_name
from sharding.sources.registry import SOURCES, Source
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
    dataset = SOURCES[arguments.dataset].dataset(arguments.root.absolute(), arguments)
    if arguments.name is not None:
        dataset = replace(dataset, name=arguments.name)
    if dataset.found:
        print(f"{arguments.root}: {dataset.found}", file=sys.stderr)
    for note in dataset.notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.dry_run:
        return _dry_run(dataset, options, arguments.root)
    if arguments.repair:
        return _repair(arguments.out, dataset, arguments.workers)
    out, report = arguments.out.absolute(), _Report(arguments.out)
    execute = _executor(arguments)
    if arguments.part:
        complete = pack_part(dataset, out, options, execute, arguments.part)
        return report(complete) if complete else _report_part(arguments.part, arguments.out)
    return report(pack(dataset, out, options, execute, arguments.max_rejects))


def _dry_run(dataset: Dataset, options: PackOptions, root: Path) -> int:
    planned = preview(dataset, options)
    print(
        f"{root} as {dataset.name}: {planned.files:,} files of {len(dataset.classes)} classes in "
        f"{len(dataset.domains)} domains, {planned.bytes / 1e6:,.1f} MB, into {planned.shards} "
        "shards; nothing written"
    )
    if planned.rejects:
        print(
            f"{planned.rejects:,} of the files will be rejected: empty, not a regular file, or "
            f"larger than {MAX_BYTES:,} bytes"
        )
    print("files that are damaged or are not images are found only by packing")
    return 0


def _report_part(part: Part, out: Path) -> int:
    print(
        f"part {part.number} of {part.count} is written; when all parts are, "
        f"run `python -m sharding merge {out}`"
    )
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    report = _Report(arguments.pack)
    return report(merge(arguments.pack.absolute(), arguments.max_rejects))


def _demo(arguments: argparse.Namespace) -> int:
    options = PackOptions(shard_size=_DEMO_SHARD_SIZE)
    execute = partial(run_local, workers=arguments.workers)
    report = _Report(arguments.out)
    return report(pack(demo_dataset(arguments.seed), arguments.out.absolute(), options, execute))


class _Report:
    """Prints a summary of the pack in ``out``; create it before packing, which it times."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._was_complete = (out / FILE_NAME).exists()
        self._started = time.perf_counter()

    def __call__(self, manifest: Manifest) -> int:
        seconds = time.perf_counter() - self._started
        done = f"in {seconds:.1f} s ({manifest.samples / seconds:,.0f} images/s)"
        print(
            f"{self._out}: {manifest.samples:,} images of {len(manifest.classes)} classes in "
            f"{len(manifest.domains)} domains, {len(manifest.shards)} shards, "
            f"{manifest.bytes / 1e6:,.1f} MB, {'already complete' if self._was_complete else done}"
        )
        if manifest.rejects and not self._was_complete:
            print(f"{manifest.rejects:,} files were not packed; see {self._out / REJECTS}")
        return 0


def _executor(arguments: argparse.Namespace) -> Executor:
    if arguments.executor == "local":
        return partial(run_local, workers=arguments.workers)
    if not arguments.scheduler:
        raise PackError("--executor dask needs --scheduler ADDRESS, e.g. tcp://host:8786")
    return partial(run_dask, scheduler=arguments.scheduler)


def _info(arguments: argparse.Namespace) -> int:
    print_info(arguments.pack)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if not arguments.repair:
        return 1 if _print_faults(arguments.pack, arguments.workers, arguments.decode) else 0
    if not arguments.root:
        raise PackError("--repair needs the tree that was packed; pass it as --root TREE")
    name = Manifest.load(arguments.pack).dataset
    if name not in SOURCES or SOURCES[name].needs_options:
        raise PackError(
            f"{arguments.pack} is repaired by the command that packed it, with --repair added"
        )
    dataset = SOURCES[name].dataset(arguments.root.absolute(), arguments)
    return _repair(arguments.pack, dataset, arguments.workers, arguments.decode)


def _repair(pack: Path, dataset: Dataset, workers: int, decode: bool = False) -> int:
    damaged = _print_faults(pack, workers, decode)
    if not damaged:
        return 0
    repair(pack, dataset, damaged, workers)
    if _print_faults(pack, workers, decode, intact="repaired, now intact"):
        return 1
    return 0


def _print_faults(pack: Path, workers: int, decode: bool, intact: str = "intact") -> set[str]:
    """Verify the pack and print its faults; returns the names of the damaged files."""
    count, damaged = 0, set()
    for fault in verify(pack, decode=decode, workers=workers):
        print(fault.text)
        count += 1
        damaged.add(fault.file)
    print(f"{pack}: {count} faults in {len(damaged)} files" if damaged else f"{pack}: {intact}")
    return damaged


def _stage(arguments: argparse.Namespace) -> int:
    copied = stage(arguments.pack.absolute(), arguments.local.absolute())
    print(f"{arguments.local}: " + ("copied and checked" if copied else "is there already"))
    return 0


def _part(text: str) -> Part:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"invalid part {text!r}; use e.g. 1/8, up to 8/8")
    return Part(int(number), int(count))


def _quality(text: str) -> int:
    quality = positive(text)
    if quality > 95:
        raise argparse.ArgumentTypeError(f"invalid quality {text!r}; use 1 to 95")
    return quality


def _name(text: str) -> str:
    check_name(text, "--name")
    return text


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

    packing = command("pack", _pack, "pack a data set; `pack DATASET --help` lists its options")
    sources = packing.add_subparsers(required=True, dest="dataset", metavar="DATASET")
    packers = [_add_source(sources, name, source) for name, source in SOURCES.items()]
    drawing = command("demo", _demo, "draw the demo data set and pack it")
    drawing.add_argument("--seed", type=natural, default=0, help="random seed")
    drawing.add_argument("--out", type=Path, required=True, help="folder of the pack")
    merging = command("merge", _merge, "complete a pack whose parts are all written")
    for accepting in (*packers, merging):
        accepting.add_argument(
            "--max-rejects",
            type=fraction,
            metavar="FRACTION",
            help="fraction of the files that may be rejected, e.g. 0.5%% or 0.005; with more "
            "the run fails at its end; by default 0.1%%, or 10 files if that is more",
        )
    verifying = command("verify", _verify, "reread a pack and report each fault")
    verifying.add_argument("--decode", action="store_true", help="also decode every image")
    verifying.add_argument(
        "--repair", action="store_true", help="rebuild damaged files from the tree"
    )
    verifying.add_argument("--root", type=Path, help="the tree that was packed, for --repair")
    informing = command("info", _info, "print what a pack holds")
    staging = command("stage", _stage, "copy a pack to this node's own disk")
    for reading in (merging, verifying, informing, staging):
        reading.add_argument("pack", type=Path, help="folder of the pack")
    staging.add_argument("local", type=Path, help="folder to create")
    for working in (*packers, drawing, verifying):
        working.add_argument(
            "--workers",
            type=positive,
            default=len(os.sched_getaffinity(0)),
            help="worker processes",
        )
    return parser


def _add_source(sources: Any, name: str, source: Source) -> argparse.ArgumentParser:
    """Add the command that packs the data set ``name``."""
    parser = sources.add_parser(
        name,
        help=source.layout,
        description=source.layout,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    source.add_options(parser)
    _add_packing(parser)
    return parser


def _add_packing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--root", type=Path, required=True, help="folder of the tree")
    add("--out", type=Path, required=True, help="folder of the pack")
    add("--name", type=_name, help="name of the data set in the pack; by default DATASET's")
    add(
        "--shard-size",
        type=size,
        metavar="SIZE",
        help="target shard size, e.g. 512MB; by default 1/16 of the images, within 16MB to 512MB",
    )
    add("--seed", type=natural, default=0, help="random seed of the global shuffle (imagenet)")
    add(
        "--resize-short",
        type=natural,
        default=0,
        metavar="PIXELS",
        help="shrink images whose shorter side is longer than this; 0 keeps the original bytes",
    )
    add("--quality", type=_quality, default=92, help="JPEG quality of shrunk images, 1 to 95")
    add(
        "--max-pixels",
        type=positive,
        default=100_000_000,
        help="reject images with more pixels, undecoded",
    )
    add(
        "--decode-check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode each image completely; otherwise damaged images get into the pack",
    )
    add(
        "--executor",
        choices=["local", "dask"],
        default="local",
        help="where the shards are written",
    )
    add("--scheduler", metavar="ADDRESS", help="address of the Dask cluster, e.g. tcp://host:8786")
    add("--part", type=_part, metavar="I/N", help="write only this slice, 1/N to N/N; then merge")
    add("--dry-run", action="store_true", help="print what would be packed and write nothing")
    add("--repair", action="store_true", help="write the damaged files of a complete pack again")


if __name__ == "__main__":
    sys.exit(main())
