"""`python -m sharding`: make and maintain packs."""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from runtime.command import run_command
from runtime.errors import ConfigError, PackError
from sharding.arguments import build_parser, local_folder
from sharding.executors import run_dask, run_local
from sharding.format.manifest import FILE_NAME, Manifest
from sharding.images import ImageOptions
from sharding.info import print_info
from sharding.packing import REJECTS, Executor, merge, pack, pack_part, preview
from sharding.remote.push import check_can_push, push
from sharding.remote.url import PackUrl
from sharding.repair import repair
from sharding.session import Part
from sharding.shard_plan import PackOptions
from sharding.sources.dataset import Dataset
from sharding.sources.demo import demo_dataset
from sharding.sources.files import MAX_BYTES
from sharding.sources.registry import SOURCES
from sharding.staging import stage
from sharding.verification import verify

_DEMO_SHARD_SIZE = 8 * 10**6


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status; 1 where ``verify`` found damage."""
    return run_command(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = build_parser(__doc__).parse_args(argv)
    return _COMMANDS[arguments.command](arguments)


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
    folder = local_folder(str(arguments.out)) if arguments.repair else _folder_to_write(arguments)
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
        return _repair(folder, dataset, arguments.workers)
    out, report = folder.absolute(), _Report(folder)
    execute = _executor(arguments)
    if arguments.part:
        complete = pack_part(dataset, out, options, execute, arguments.part)
        return report(complete) if complete else _report_part(arguments.part, folder)
    report(pack(dataset, out, options, execute, arguments.max_rejects))
    return _push_to(out, arguments.out) if arguments.out != folder else 0


def _folder_to_write(arguments: argparse.Namespace) -> Path:
    """Where the shards are written: ``--out``, or where that is a URL, ``--work``."""
    if isinstance(arguments.out, Path):
        if arguments.work:
            raise ConfigError("--work is for an --out that is a URL; leave it out")
        return arguments.out
    check_can_push(arguments.out)
    if arguments.work is None:
        raise ConfigError(
            f"--out {arguments.out} needs a folder to pack into first; add --work FOLDER"
        )
    if arguments.part:
        raise ConfigError(
            f"parts are merged before the upload; give --out FOLDER, and after the merge run "
            f"`python -m sharding push FOLDER {arguments.out}`"
        )
    return arguments.work


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


def _push(arguments: argparse.Namespace) -> int:
    return _push_to(arguments.pack.absolute(), arguments.url)


def _push_to(pack: Path, url: PackUrl) -> int:
    print(f"{url}: " + ("uploaded" if push(pack, url) else "is there already"))
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    pack = arguments.pack
    local = arguments.local.absolute()
    if not stage(pack.absolute() if isinstance(pack, Path) else pack, local):
        print(f"{local}: is there already")
    return 0


_COMMANDS = {
    "pack": _pack,
    "demo": _demo,
    "merge": _merge,
    "verify": _verify,
    "info": _info,
    "stage": _stage,
    "push": _push,
}

if __name__ == "__main__":
    sys.exit(main())
