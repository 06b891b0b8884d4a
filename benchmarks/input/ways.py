"""Ways of loading images: each yields the number of images in its batches, endlessly.

A way imports what it needs when it starts, so that a process measures the memory of its own way.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.input.dali_ways import (
    BATCH,
    SIZE,
    bare_graph,
    dali_reader,
    decode_and_resize,
    decode_only,
)


def ours(work: Path, threads: int, *packs: str) -> Iterator[int]:
    """Pairs of the plan through `pipelines`, of the images in ``packs``, by default in `pack`."""
    from model.config import Preprocessing
    from pipelines.config import AugmentConfig, Decoding, InputConfig
    from pipelines.loader import PairLoader
    from pipelines.pack import Pack
    from pipelines.packs import joined
    from pipelines.pairs import PairData, Share
    from pipelines.selection import Selection

    pack = joined([Pack(work / name) for name in packs or ("pack",)])
    data = PairData.select(pack, [Selection()] * len(pack.members), seed=0)
    decoding = Decoding(Preprocessing(image_size=SIZE), InputConfig(num_threads=threads))
    loader = PairLoader(data, AugmentConfig(), decoding, Share(BATCH // 2))
    for batch in loader:
        yield len(batch.images)


def ours_resized(work: Path, threads: int) -> Iterator[int]:
    """The same from a pack made with `--resize-short 256`."""
    return ours(work, threads, "pack256")


def ours_of_imagenets_size(work: Path, threads: int) -> Iterator[int]:
    """The same with 1,281,167 rows in the index, of 1,000 classes."""
    return ours(work, threads, "packlarge")


def ours_of_two_packs(work: Path, threads: int) -> Iterator[int]:
    """The same images in two packs that are read as one."""
    return ours(work, threads, "pack0", "pack1")


def _paper_transform() -> Callable:
    from benchmarks.original import augmenting_transform
    from pipelines.config import AugmentConfig

    return augmenting_transform(AugmentConfig(), SIZE)


def original_way(work: Path, threads: int) -> Iterator[int]:
    """Pillow and torchvision in a DataLoader's worker processes, one file per image."""
    import torch

    from benchmarks.original import PairImages

    files = sorted((work / "tree").rglob("*.jpg"))

    def read(number: int) -> tuple[bytes, bytes, bool]:
        anchor, partner = (files[number * step % len(files)] for step in (7919, 104729))
        return anchor.read_bytes(), partner.read_bytes(), True

    pairs = PairImages(read, 10**9, _paper_transform())
    loader: Any = torch.utils.data.DataLoader(pairs, batch_size=BATCH // 2, num_workers=threads)
    for anchors, partners, _ in loader:
        yield len(anchors) + len(partners)


def webdataset_way(work: Path, threads: int) -> Iterator[int]:
    """WebDataset reading the pack's shards, with torchvision in a DataLoader's workers."""
    import torch
    import webdataset
    from PIL import Image

    transform = _paper_transform()
    shards = sorted(str(path) for path in (work / "pack").glob("*.tar"))
    dataset = (
        webdataset.WebDataset(shards * 1000, shardshuffle=False, empty_check=False)
        .shuffle(1000)
        .to_tuple("jpg")
        .map_tuple(lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB")))
        .batched(BATCH)
    )
    for (images,) in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=threads):
        yield len(images)


def streaming_way(work: Path, threads: int) -> Iterator[int]:
    """MosaicML StreamingDataset with torchvision, where `mosaicml-streaming` is installed."""
    import torch
    from PIL import Image
    from streaming import MDSWriter, StreamingDataset

    out = work / "mds"
    if not out.exists():
        with MDSWriter(out=str(out), columns={"jpg": "bytes"}) as writer:
            for path in sorted((work / "tree").rglob("*.jpg")):
                writer.write({"jpg": path.read_bytes()})
    transform = _paper_transform()

    class Images(StreamingDataset):
        def __getitem__(self, number):
            return transform(Image.open(io.BytesIO(super().__getitem__(number)["jpg"])))

    while True:
        dataset = Images(local=str(out), shuffle=True, batch_size=BATCH)
        loader: Any = torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=threads)
        yield from map(len, loader)


def _read_jpeg(path: str) -> dict[str, bytes]:
    return {"jpg": Path(path).read_bytes()}


class _DecodeJpeg:
    """What `_read_jpeg` gave, decoded and transformed."""

    def __init__(self) -> None:
        self.transform = _paper_transform()

    def __call__(self, sample: dict[str, bytes]):
        from PIL import Image

        return self.transform(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))


def litdata_way(work: Path, threads: int) -> Iterator[int]:
    """litdata's StreamingDataset with torchvision, where `litdata` is installed."""
    import litdata

    out = work / "litdata"
    if not out.exists():
        files = sorted(str(path) for path in (work / "tree").rglob("*.jpg"))
        litdata.optimize(
            fn=_read_jpeg,
            inputs=files, output_dir=str(out), chunk_bytes="64MB", num_workers=1,
        )  # fmt: skip
    while True:
        dataset = litdata.StreamingDataset(str(out), shuffle=True, transform=_DecodeJpeg())
        loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=threads)
        yield from map(len, loader)


WAYS: dict[str, Callable[[Path, int], Iterator[int]]] = {
    "ours": ours,
    "ours, packed to 256": ours_resized,
    "ours, 1,281,167 rows": ours_of_imagenets_size,
    "ours, two packs": ours_of_two_packs,
    "DALI decode only": decode_only,
    "DALI decode + resize": decode_and_resize,
    "DALI bare graph": bare_graph,
    "DALI WebDataset reader": dali_reader,
    "original (Pillow)": original_way,
    "WebDataset + Pillow": webdataset_way,
    "StreamingDataset + Pillow": streaming_way,
    "litdata + Pillow": litdata_way,
}
