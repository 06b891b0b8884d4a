"""The images of the check: drawn, with about the entropy of photographs.

Importing it loads neither torch nor DALI, because each worker process that packs imports it.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.gpu.node import Size
from sharding.sources.dataset import Dataset, Sample

CLASSES = tuple(f"class{number:02d}" for number in range(16))
DOMAINS = ("reference", "test")


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
    """The image as a JPEG of quality 90, or in a different ``format``."""
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
            domain, label = divmod(number % (2 * len(CLASSES)), len(CLASSES))
            yield Sample(f"{number}.jpg", size.width * size.height // 2, label, domain)

    reader = Drawer(size.width, size.height, progressive)
    return Dataset("drawn", CLASSES, DOMAINS, ("all",), samples, reader)
