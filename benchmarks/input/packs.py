"""The packs that the ways of loading images read."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def prepare(images: Path, work: Path, count: int) -> None:
    """Copy the JPEGs found in ``images`` into a tree of ``count`` files, at least two per class,
    and pack it twice, and once more in two packs of half the classes each."""
    found = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    classes = min(len(found), count // 2)
    for number in range(count):
        source = found[number % len(found)]
        target = work / "tree" / f"class{number % classes:04d}" / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    pack = [sys.executable, "-m", "sharding", "pack", "imagefolder", "--root", str(work / "tree")]
    pack += ["--shard-size", "64MB", "--max-rejects", "0", "--out"]
    subprocess.run([*pack, str(work / "pack")], check=True)
    subprocess.run([*pack, str(work / "pack256"), "--resize-short", "256"], check=True)
    for half in range(2):
        for folder in sorted((work / "tree").iterdir())[half::2]:
            shutil.copytree(folder, work / f"half{half}" / folder.name, copy_function=os.link)
        pack[pack.index("--root") + 1] = str(work / f"half{half}")
        subprocess.run([*pack, str(work / f"pack{half}")], check=True)
    _enlarge_index(work / "pack", work / "packlarge")


def _enlarge_index(pack: Path, out: Path) -> None:
    """Make a pack ``out`` with at least ImageNet's rows, and its classes: links to the shards of
    ``pack``, over and over."""
    from sharding.format.index import IndexColumns, key_name, write_index
    from sharding.format.manifest import dali_index_name, shard_name
    from sharding.format.opening import open_pack

    contents, classes = open_pack(pack), 1000
    manifest, index = contents.manifest, contents.index
    copies = -(-1_281_167 // len(index))
    shards = [
        dataclasses.replace(info, name=shard_name(number))
        for number, info in enumerate(manifest.shards * copies)
    ]
    out.mkdir()
    for shard, info in zip(shards, manifest.shards * copies, strict=True):
        os.link(pack / info.name, out / shard.name)
        os.link(pack / dali_index_name(info.name), out / dali_index_name(shard.name))
    rows = len(index) * copies
    columns: dict[str, Any] = {
        name: np.tile(column, copies) for name, column in vars(index).items()
    }
    columns["shard"] = np.repeat(np.arange(len(shards)), [shard.samples for shard in shards])
    columns["label"] = np.arange(rows) % classes
    columns["key"] = [key_name(number) for number in range(rows)]
    columns["source"] = [f"n{number % classes:08d}/{number:08d}.JPEG" for number in range(rows)]
    stated = write_index(out, [IndexColumns(**columns)])
    dataclasses.replace(
        manifest,
        classes=tuple(f"n{number:08d}" for number in range(classes)),
        samples=rows,
        bytes=manifest.bytes * copies,
        shards=tuple(shards),
        index=stated,
    ).save(out)
