"""The images of the check: drawn, with about the entropy of photographs, and packed."""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.gpu.node import Budget, Node, Row, Size
from evaluation.protocol import Protocol, Target
from pipelines.config import AugmentConfig, InputConfig
from pipelines.loader import PairLoader
from pipelines.pack import Pack
from pipelines.plan import PairPlan
from pipelines.selection import Selection
from sharding.executors import run_local
from sharding.images import ImageOptions
from sharding.listing import PackOptions
from sharding.packing import pack
from sharding.sources.dataset import Dataset, Sample

ORIGINAL, RESIZED, PROGRESSIVE = "original", "resized", "progressive"
NUM_NEGATIVES = 1
_CLASSES = tuple(f"class{number:02d}" for number in range(16))
_DOMAINS = ("reference", "test")


def draw(number: int, width: int, height: int) -> Image.Image:
    """Image ``number``: smooth color, shapes with sharp edges, and fine noise."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        size = int(rng.integers(height // 12 + 1, height // 4 + 2))
        box = (int(x), int(y), int(x) + size, int(y) + size)
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(
            box, fill=tuple(rng.integers(0, 256, 3).tolist())
        )
    noise = rng.normal(0, 33, (height, width, 1)).astype(np.float32)
    noisy = np.clip(np.asarray(image, dtype=np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).filter(ImageFilter.GaussianBlur(0.6))


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """The image as a JPEG of quality 90, or in another format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 90} if format == "JPEG" else {}), **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Drawer:
    """Draws the sample whose source is ``<number>.jpg``."""

    width: int
    height: int
    progressive: bool

    def __call__(self, sample: Sample) -> bytes:
        image = draw(int(sample.source.removesuffix(".jpg")), self.width, self.height)
        return encode(image, progressive=self.progressive)


def drawn_dataset(size: Size, *, progressive: bool = False) -> Dataset:
    """``size.images`` images of 16 classes, half of each in the domain ``reference`` and half in
    ``test``."""

    def samples() -> Iterator[Sample]:
        for number in range(size.images):
            domain, label = divmod(number % (2 * len(_CLASSES)), len(_CLASSES))
            yield Sample(f"{number}.jpg", size.width * size.height // 2, label, domain)

    reader = Drawer(size.width, size.height, progressive)
    return Dataset("drawn", _CLASSES, _DOMAINS, ("all",), samples, reader)


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
    pack: Pack, config: InputConfig, pairs: int, augment: AugmentConfig | None = None
) -> PairLoader:
    """The product's batches of ``pairs`` pairs; in an epoch each image is an anchor at least once.

    Without ``augment`` the augmentation is the paper's.
    """
    plan = PairPlan(pack.index.label, seed=0, num_negatives=NUM_NEGATIVES)
    rows = np.arange(len(pack.index))
    return PairLoader(pack, rows, plan, augment or AugmentConfig(), config, global_batch=pairs)


def drawn_protocol() -> Protocol:
    """The first half of the classes are known; references and tests are the two domains."""
    known = _CLASSES[: len(_CLASSES) // 2]
    target = Target(
        "test",
        reference=(Selection(domains=("reference",), classes=known),),
        test=(Selection(domains=("test",)),),
    )
    return Protocol("drawn", "drawn", known, (target,))
