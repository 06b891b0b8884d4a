"""Checks one image, and keeps its bytes, converts it or rejects it.

| source | in the pack |
|---|---|
| 8-bit JPEG with 3 or 1 components | the same bytes |
| 8-bit PNG, RGB or gray, not animated, no transparency | the same bytes |
| CMYK JPEG; PNG with palette, alpha, 1, 2, 4 or 16 bits; WebP, BMP, TIFF, GIF | RGB as PNG |
| shorter side above ``resize_short`` | resized RGB as JPEG |

RGB is what Pillow's ``convert("RGB")`` gives: alpha is dropped, and 16 bits are reduced to their
upper 8. Only the first of several frames is used. EXIF orientation is ignored. The format is
detected from the content, not from the file's name. An image is rejected if Pillow cannot decode
it, or if it would keep its bytes but DALI could not decode them.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sharding.format.header import pixel_size
from sharding.format.index import MAX_PIXELS
from sharding.structure import structural_fault

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_PNG_DEPTH_AND_COLOR = slice(24, 26)
_PNG_KEPT = (b"\x08\x00", b"\x08\x02")


@dataclass(frozen=True)
class ImageOptions:
    """How images are checked and converted.

    Attributes:
        decode_check: decode each image completely; otherwise only headers are read, and damaged
            images get into the pack.
        resize_short: pixels; images whose shorter side is longer are shrunk to it; 0 shrinks none.
        quality: JPEG quality of shrunk images.
        max_pixels: images with more pixels are rejected undecoded.
    """

    decode_check: bool = True
    resize_short: int = 0
    quality: int = 92
    max_pixels: int = 100_000_000


@dataclass(frozen=True)
class PackedImage:
    """An image as a shard stores it; ``extension`` is "jpg" or "png"."""

    content: bytes
    extension: str
    width: int
    height: int


class Rejected(Exception):
    """An image that cannot be packed; the message says why."""


def pack_image(content: bytes, options: ImageOptions) -> PackedImage:
    """Check the encoded image ``content`` and convert it to the form that a pack stores.

    Raises:
        Rejected: it is empty, not an image, of an unsupported format or pixel type, too large, or
            damaged.
    """
    if not content:
        raise Rejected("empty file")
    try:
        return _pack(content, options)
    except UnidentifiedImageError as error:
        raise Rejected(f"not a readable image ({', '.join(_FORMATS)})") from error
    except (Rejected, MemoryError):
        raise
    except Exception as error:  # decoders may raise anything on untrusted bytes
        raise Rejected(f"damaged: {type(error).__name__}: {error}") from error


def _pack(content: bytes, options: ImageOptions) -> PackedImage:
    Image.MAX_IMAGE_PIXELS = None  # replaced by the exact limit below
    image: Image.Image = Image.open(io.BytesIO(content), formats=_FORMATS)
    max_pixels = min(options.max_pixels, MAX_PIXELS)
    if image.width * image.height > max_pixels:
        raise Rejected(
            f"{image.width} x {image.height} pixels are more than the limit of {max_pixels:,}"
        )
    extension = _kept_as(image, content)
    shrunk = 0 < options.resize_short < min(image.size)
    if extension and not shrunk:
        if options.decode_check:
            image.load()
            if fault := structural_fault(content):
                raise Rejected(f"damaged: {fault}")
        if pixel_size(content) != image.size:
            raise Rejected("damaged: its header states no size or a different one")
        return PackedImage(content, extension, image.width, image.height)
    rgb = _to_rgb(image)
    if shrunk:
        rgb = _shrink(rgb, options.resize_short)
        encoding: dict[str, Any] = {"format": "JPEG", "quality": options.quality}
    else:
        encoding = {"format": "PNG"}
    encoded = io.BytesIO()
    rgb.save(encoded, **encoding)
    extension = "jpg" if shrunk else "png"
    return PackedImage(encoded.getvalue(), extension, rgb.width, rgb.height)


def _kept_as(image: Image.Image, content: bytes) -> str | None:
    """The extension if the bytes are kept as they are, else None."""
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        return "jpg"
    if (
        image.format == "PNG"
        and content[_PNG_DEPTH_AND_COLOR] in _PNG_KEPT
        and "transparency" not in image.info
        and not getattr(image, "is_animated", False)
    ):
        return "png"
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise Rejected(f"pixels of type {image.mode} (32-bit) are not supported")
    rgb = image.convert("RGB")
    rgb.info.clear()  # otherwise a palette's transparency or a color profile would be saved as well
    return rgb


def _shrink(rgb: Image.Image, short: int) -> Image.Image:
    scale = short / min(rgb.size)
    size = tuple(max(short, round(side * scale)) for side in rgb.size)
    return rgb.resize((size[0], size[1]), Image.Resampling.BICUBIC)
