"""The options of `python -m sharding`."""

import argparse
import os
from pathlib import Path
from typing import Any

from runtime.command import HelpFormatter, Parser, fraction, natural, positive, size
from runtime.errors import ConfigError
from sharding.remote.url import PackUrl, is_url
from sharding.session import Part
from sharding.sources.names import check_name
from sharding.sources.registry import SOURCES, Source


def build_parser(description: str) -> argparse.ArgumentParser:
    """The parser; its ``command`` is the name of the command that is given."""
    parser = Parser(prog="python -m sharding", description=description)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=HelpFormatter,
        )

    packing = command("pack", "pack a data set; `pack DATASET --help` lists its options")
    sources = packing.add_subparsers(required=True, dest="dataset", metavar="DATASET")
    packers = [_add_source(sources, name, source) for name, source in SOURCES.items()]
    drawing = command("demo", "draw the demo data set and pack it")
    drawing.add_argument("--seed", type=natural, default=0, help="random seed")
    drawing.add_argument("--out", type=Path, required=True, help="folder of the pack")
    merging = command("merge", "complete a pack whose parts are all written")
    for accepting in (*packers, merging):
        accepting.add_argument(
            "--max-rejects",
            type=fraction,
            metavar="FRACTION",
            help="fraction of the files that may be rejected, e.g. 0.5%% or 0.005; with more "
            "the run fails at its end; by default 0.1%%, or 10 files if that is more",
        )
    verifying = command("verify", "reread a pack and report each fault")
    verifying.add_argument("--decode", action="store_true", help="also decode every image")
    verifying.add_argument(
        "--repair", action="store_true", help="rebuild damaged files from the tree"
    )
    verifying.add_argument("--root", type=Path, help="the tree that was packed, for --repair")
    informing = command("info", "print what a pack holds")
    staging = command("stage", "copy a pack to this node's own disk")
    staging.add_argument("pack", type=_location, help="folder of the pack, or its URL")
    staging.add_argument("local", type=local_folder, help="folder to create")
    pushing = command("push", "copy a pack to an object store")
    for reading in (merging, verifying, informing, pushing):
        reading.add_argument("pack", type=local_folder, help="folder of the pack")
    pushing.add_argument(
        "url", type=PackUrl.parse, help="URL to create, e.g. s3://bucket/packs/pacs"
    )
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
        formatter_class=HelpFormatter,
    )
    source.add_options(parser)
    _add_packing(parser)
    return parser


def _add_packing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--root", type=Path, required=True, help="the data set: a folder, or what is said above")
    add("--out", type=_location, required=True, help="folder of the pack, or its URL")
    add(
        "--work",
        type=local_folder,
        metavar="FOLDER",
        help="where to pack if --out is a URL; it is kept",
    )
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


def _location(text: str) -> Path | PackUrl:
    return PackUrl.parse(text) if is_url(text) else Path(text)


def local_folder(text: str) -> Path:
    """An argparse type: a folder; ConfigError for a URL."""
    if is_url(text):
        raise ConfigError(
            f"{PackUrl.parse(text)} is remote; copy it with `python -m sharding stage` first"
        )
    return Path(text)


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
