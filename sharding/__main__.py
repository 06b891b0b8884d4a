"""`python -m sharding`: make packs and look after them."""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sharding.drawn import demo_dataset
from sharding.errors import PackError
from sharding.images import ImageOptions
from sharding.index import Index
from sharding.listing import PackOptions
from sharding.manifest import Manifest
from sharding.packing import REJECTS, pack
from sharding.published import DATASETS
from sharding.verification import verify

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DEMO_SHARD_SIZE = 8 * 10**6


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, 1 where ``verify`` found damage, or 2 with one line on standard
    error for a user's mistake."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except PackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _pack(arguments: argparse.Namespace) -> int:
    options = PackOptions(
        shard_size=arguments.shard_size,
        image=ImageOptions(
            resize_short=arguments.resize_short,
            quality=arguments.quality,
            max_pixels=arguments.max_pixels,
        ),
    )
    started = time.perf_counter()
    manifest = pack(
        DATASETS[arguments.dataset](arguments.root), arguments.out, options, arguments.workers
    )
    return _summary(manifest, arguments.out, time.perf_counter() - started)


def _demo(arguments: argparse.Namespace) -> int:
    options = PackOptions(shard_size=_DEMO_SHARD_SIZE)
    started = time.perf_counter()
    manifest = pack(demo_dataset(arguments.seed), arguments.out, options, arguments.workers)
    return _summary(manifest, arguments.out, time.perf_counter() - started)


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
    manifest, index = Manifest.load(arguments.pack), Index.load(arguments.pack)
    counts = np.zeros((len(manifest.classes), len(manifest.domains)), dtype=np.int64)
    np.add.at(counts, (index.label, index.domain), 1)
    table = Table("label", "class", *manifest.domains, "all", title=f"{manifest.dataset}: images")
    for label, (name, row) in enumerate(zip(manifest.classes, counts, strict=True)):
        table.add_row(str(label), name, *map(str, row), str(row.sum()))
    table.add_section()
    table.add_row("", "all", *map(str, counts.sum(0)), str(counts.sum()))
    console = Console()
    console.print(table)
    for number, name in enumerate(manifest.splits):
        console.print(f"split {name}: {int((index.split == number).sum()):,} images")
    console.print(
        f"{len(manifest.shards)} shards, {manifest.bytes / 1e6:,.1f} MB, "
        f"{manifest.rejects:,} rejected, fingerprint {manifest.fingerprint[:16]}"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    found = 0
    for line in verify(arguments.pack):
        print(line)
        found += 1
    print(f"{arguments.pack}: " + (f"{found} faults" if found else "whole"))
    return 1 if found else 0


def _size(text: str) -> int:
    for unit, factor in _UNITS.items():
        if text.endswith(unit) and text.removesuffix(unit).replace(".", "", 1).isdigit():
            return int(float(text.removesuffix(unit)) * factor)
    raise argparse.ArgumentTypeError(f"{text!r} is no size; write 512MB, 2GiB or the like")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sharding", description=__doc__)
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
    packing.add_argument("dataset", choices=list(DATASETS), help="layout of the tree")
    packing.add_argument("--root", type=Path, required=True, help="folder of the tree")
    packing.add_argument(
        "--shard-size", type=_size, default="512MB", metavar="SIZE", help="bytes aimed at"
    )
    packing.add_argument(
        "--resize-short",
        type=int,
        default=0,
        metavar="PIXELS",
        help="shrink images whose shorter side is larger; 0 keeps the original bytes",
    )
    packing.add_argument("--quality", type=int, default=92, help="JPEG quality of shrunk images")
    packing.add_argument(
        "--max-pixels", type=int, default=100_000_000, help="reject larger images undecoded"
    )
    drawing = command("demo", _demo, "draw the demo data set and pack it")
    drawing.add_argument("--seed", type=int, default=0, help="of the drawings")
    for writing in (packing, drawing):
        writing.add_argument("--out", type=Path, required=True, help="folder of the pack")
        writing.add_argument(
            "--workers",
            type=_positive,
            default=len(os.sched_getaffinity(0)),
            help="worker processes",
        )
    for name, run, summary in (
        ("info", _info, "print what a pack holds"),
        ("verify", _verify, "read a pack again and name what is damaged"),
    ):
        command(name, run, summary).add_argument("pack", type=Path, help="folder of the pack")
    return parser


if __name__ == "__main__":
    sys.exit(main())
