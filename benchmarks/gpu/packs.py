"""The packs of the check, and how the product reads them."""

import time
from collections.abc import Iterator
from functools import partial

from benchmarks.gpu.drawing import CLASSES, drawn_dataset
from benchmarks.gpu.node import Budget, Node, Row
from evaluation.protocol import Part, Protocol, Target
from pipelines.config import AugmentConfig, Decoding
from pipelines.loader import PairLoader
from pipelines.pack import Pack
from pipelines.pairs import PairData, Share
from pipelines.selection import Selection
from sharding.executors import run_local
from sharding.images import ImageOptions
from sharding.listing import PackOptions
from sharding.packing import pack

ORIGINAL, RESIZED, PROGRESSIVE = "original", "resized", "progressive"
NUM_NEGATIVES = 1


def draw_pack(node: Node, name: str) -> Pack:
    """Draw the pack ``name``, one of ``ORIGINAL``, ``RESIZED`` and ``PROGRESSIVE``."""
    size = node.size
    resize_short = size.resize_short if name == RESIZED else 0
    options = PackOptions(image=ImageOptions(resize_short=resize_short))
    dataset = drawn_dataset(size, progressive=name == PROGRESSIVE)
    pack(dataset, node.folder / name, options, partial(run_local, workers=node.num_cores))
    return Pack(node.folder / name)


def draw_packs(node: Node, budget: Budget) -> Iterator[Row]:
    """Draw the packs that the other parts read."""
    for name in (ORIGINAL, PROGRESSIVE, RESIZED):
        started = time.perf_counter()
        drawn = draw_pack(node, name)
        seconds = time.perf_counter() - started
        size = node.size
        pixels = f"{size.width} x {size.height}" if name != RESIZED else f"to {size.resize_short}"
        yield Row(
            f"{name}, {pixels}",
            {
                "images": size.images,
                "KB per image": float(drawn.index.size.mean()) / 1000,
                "drawn images/s": size.images / seconds,
            },
        )


def pair_loader(
    pack: Pack, decoding: Decoding, pairs: int, augment: AugmentConfig | None = None
) -> PairLoader:
    """The product's batches of ``pairs`` pairs; in an epoch each image is an anchor at least once.

    Without ``augment`` the augmentation is the paper's.
    """
    data = PairData.select(pack, [Selection()], seed=0, num_negatives=NUM_NEGATIVES)
    return PairLoader(data, augment or AugmentConfig(), decoding, Share(pairs))


def drawn_protocol() -> Protocol:
    """The first half of the classes are known; references and tests are the two domains."""
    known = CLASSES[: len(CLASSES) // 2]
    target = Target(
        "test",
        reference=(Part(Selection(domains=("reference",), classes=known)),),
        test=(Part(Selection(domains=("test",))),),
    )
    return Protocol("drawn", "drawn", known, (target,))
