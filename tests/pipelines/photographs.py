"""Drawn images with the properties of photographs, and their files."""

import io

import numpy as np
from PIL import Image, ImageFilter


def photograph(seed, width, height):
    """A smooth, colorful image with some fine structure, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 12, (height, width, 3))
    noisy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).filter(ImageFilter.GaussianBlur(0.7))


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


SIZES = [(500, 375), (375, 500), (320, 240), (130, 97), (640, 480), (96, 96)]
JPEGS = [
    encoded(photograph(n, *size), format="JPEG", quality=90, progressive=n % 2 == 1)
    for n, size in enumerate(SIZES)
]
