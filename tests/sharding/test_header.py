"""An image's size by its header, compared with what Pillow decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from sharding.format.header import PixelSize, pixel_size

PIXELS = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)


def encoded(image_format, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")


@pytest.mark.parametrize(
    "content",
    [
        JPEG,
        encoded("JPEG", mode="L"),
        encoded("JPEG", progressive=True, subsampling=0),
        encoded("JPEG", icc_profile=bytes(200_000), exif=b"Exif\0\0" + bytes(60_000)),
        encoded("JPEG", comment=b"\xff\xc0" * 20, restart_marker_blocks=2),
        JPEG[:2] + b"\xff" * 9 + JPEG[2:],
        PNG,
        encoded("PNG", mode="L"),
    ],
    ids=["jpeg", "gray", "progressive", "profile", "comment", "fill", "png", "gray-png"],
)
def test_the_header_states_the_size_that_is_decoded(content):
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.size == (47, 31)
    assert pixel_size(content) == PixelSize(width=47, height=31)
    assert pixel_size(memoryview(np.frombuffer(content, dtype=np.uint8))) == (47, 31)


@pytest.mark.parametrize(
    "content",
    [JPEG[:20] + b"junk" + JPEG[20:], PNG[:-12], PNG[:-1], PNG[:60]],
    ids=["bytes-between-segments", "png-without-end", "png-cut-in-its-end", "png-cut"],
)
def test_what_makes_a_parser_of_dali_fail_has_no_size(content):
    assert pixel_size(content) is None


def altered(content, position, value):
    return content[:position] + bytes([value]) + content[position + 1 :]


FRAME = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff",
        b"GIF89a" + JPEG,
        JPEG[: FRAME + 8],
        JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :],
        JPEG[:2] + b"\xff\xd9" + JPEG[2:],
        altered(altered(JPEG, FRAME + 5, 0), FRAME + 6, 0),
        PNG[:32],
        altered(PNG, 19, 48),
        altered(PNG, 12, ord("i")),
    ],
    ids=[
        "empty",
        "start-alone",
        "gif",
        "cut-short",
        "no-frame",
        "ended",
        "no-height",
        "png-cut-short",
        "png-checksum",
        "png-other-chunk",
    ],
)
def test_what_has_no_readable_header_has_no_size(content):
    assert pixel_size(content) is None


def test_any_flipped_bit_of_a_png_header_is_noticed():
    for bit in range(33 * 8):
        content = altered(PNG, bit // 8, PNG[bit // 8] ^ 1 << bit % 8)
        assert pixel_size(content) is None


def test_random_bytes_after_the_start_never_raise():
    rng = np.random.default_rng(1)
    for _ in range(500):
        tail = rng.choice(np.array([0, 1, 2, 0xC0, 0xDA, 0xE0, 0xFF], dtype=np.uint8), 40)
        pixel_size(JPEG[:FRAME] + tail.tobytes())
