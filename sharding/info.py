"""Prints what a pack holds, as a table: images by class and domain."""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharding.format.opening import PackContents, open_pack

_MAX_CLASSES, _MAX_DOMAINS, _MAX_SPLITS = 50, 20, 100


def print_info(pack: Path) -> None:
    """Print the number of images by class, domain and split, the totals and the fingerprint.

    Names are printed literally, even if they contain markup. Only the first of many classes or
    splits are shown; if there are more domains than fit in a table, none is.

    Raises:
        PackError: ``pack`` is not a complete pack, or it is damaged.
    """
    contents = open_pack(pack)
    manifest, index = contents.manifest, contents.index
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(_table(contents))
    if (more := len(manifest.classes) - _MAX_CLASSES) > 0:
        console.print(f"and {more:,} more classes, whose names are in manifest.json")
    images = np.bincount(index.split, minlength=len(manifest.splits)).tolist()
    for name, count in list(zip(manifest.splits, images, strict=True))[:_MAX_SPLITS]:
        console.print(f"split {name}: {count:,} images")
    if (more := len(manifest.splits) - _MAX_SPLITS) > 0:
        console.print(f"and {more:,} more splits")
    console.print(
        f"{len(manifest.shards)} shards, {manifest.bytes / 1e6:,.1f} MB, "
        f"{manifest.rejects:,} rejected, fingerprint {manifest.fingerprint[:16]}"
    )


def _table(contents: PackContents) -> Table:
    manifest, index = contents.manifest, contents.index
    by_class = np.bincount(index.label, minlength=len(manifest.classes))
    if len(manifest.domains) > _MAX_DOMAINS:
        domains: tuple[str, ...] = ()
        title = f"{manifest.dataset}: images of {len(manifest.domains):,} domains"
    else:
        domains, title = manifest.domains, f"{manifest.dataset}: images"
    shown = min(len(manifest.classes), _MAX_CLASSES)
    counts = [
        np.bincount(index.label[index.domain == number], minlength=len(manifest.classes))
        for number in range(len(domains))
    ]
    table = Table(title=Text(title))
    for header in ("label", "class", *domains, "all"):
        table.add_column(Text(header))
    for label in range(shown):
        numbers = (str(count[label]) for count in (*counts, by_class))
        table.add_row(str(label), Text(manifest.classes[label]), *numbers)
    table.add_section()
    table.add_row("", "all", *(str(count.sum()) for count in (*counts, by_class)))
    return table
