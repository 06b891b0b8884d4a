"""What a pack keeps, converts and rejects, image by image."""

import io
import random
import zlib
from itertools import chain

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

from sharding.images import ImageOptions, Rejected, pack_image
from tests.common import png, png_chunk

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 33, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def encoded(image, format_, **options):
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def exif_rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def interlaced(pixels):
    """The RGB ``pixels``, uint8 (H, W, 3), as an interlaced PNG (RFC 2083, section 2.6)."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
    rows = chain.from_iterable(pixels[y::dy, x::dx] for x, y, dx, dy in passes)
    height, width = pixels.shape[:2]
    data = b"".join(b"\0" + row.tobytes() for row in rows if row.size)
    return png(width, height, data, interlaced=True)


KEPT = {
    "jpeg": encoded(RGB, "JPEG"),
    "progressive": encoded(RGB, "JPEG", progressive=True),
    "gray-jpeg": encoded(RGB.convert("L"), "JPEG"),
    "rotated-jpeg": encoded(RGB, "JPEG", exif=exif_rotated()),
    "png": encoded(RGB, "PNG"),
    "gray-png": encoded(RGB.convert("L"), "PNG"),
    "interlaced-png": interlaced(PIXELS),
    "one-pixel-interlaced-png": interlaced(PIXELS[:1, :1]),
    "png-and-more": encoded(RGB, "PNG") + b"more",
    "restarting-jpeg": encoded(RGB, "JPEG", restart_marker_blocks=1),
    "jpeg-with-a-comment": encoded(RGB, "JPEG", comment=b"hello"),
}
CONVERTED = {
    "cmyk-jpeg": encoded(RGB.convert("CMYK"), "JPEG"),
    "alpha-png": encoded(RGB.convert("RGBA"), "PNG"),
    "palette-png": encoded(RGB.convert("P"), "PNG"),
    "transparent-png": encoded(RGB.convert("P"), "PNG", transparency=3),
    "bilevel-png": encoded(RGB.convert("1"), "PNG"),
    "gif": encoded(RGB, "GIF"),
    "animated-gif": encoded(RGB, "GIF", save_all=True, append_images=[Image.new("RGB", (33, 24))]),
    "animated-png": encoded(RGB, "PNG", save_all=True, append_images=[Image.new("RGB", (33, 24))]),
    "webp": encoded(RGB, "WEBP"),
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF"),
}


def as_a_loader_sees(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("name", KEPT)
def test_what_dali_decodes_alike_keeps_its_bytes(name):
    packed = pack_image(KEPT[name], ImageOptions())
    assert packed.content == KEPT[name]
    assert (packed.width, packed.height) == ((1, 1) if "one-pixel" in name else (33, 24))


@pytest.mark.parametrize("name", CONVERTED)
def test_the_rest_becomes_a_png_of_the_same_pixels(name):
    packed = pack_image(CONVERTED[name], ImageOptions())
    assert packed.extension == "png"
    assert np.array_equal(as_a_loader_sees(packed.content), as_a_loader_sees(CONVERTED[name]))


def test_of_16_bits_the_upper_8_stay():
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 255)
    packed = pack_image(encoded(deep, "PNG"), ImageOptions())
    assert np.array_equal(as_a_loader_sees(packed.content)[..., 1], PIXELS[..., 0])


class Dali:
    """DALI's decoder on the CPU, as the input pipelines use it."""

    def __init__(self):
        self._pipeline = None

    def decode(self, content):
        """The RGB pixels, uint8 (H, W, 3), or None if DALI refuses ``content``."""
        if self._pipeline is None:
            self._pipeline = self._graph()
        self._content = np.frombuffer(content, dtype=np.uint8)
        try:
            return self._pipeline.run()[0].at(0)
        except RuntimeError:
            self._pipeline = None  # a pipeline that has failed cannot be used again
            return None

    def _graph(self):
        @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
        def graph():
            files = fn.external_source(source=lambda: [self._content], dtype=types.UINT8)
            return fn.decoders.image(files, output_type=types.RGB, adjust_orientation=False)

        return graph()


@pytest.fixture(scope="module")
def dali():
    return Dali()


@pytest.mark.parametrize("name", [*KEPT, *CONVERTED])
def test_dali_decodes_what_is_packed_to_the_same_pixels(name, dali):
    content = pack_image({**KEPT, **CONVERTED}[name], ImageOptions()).content
    assert np.array_equal(dali.decode(content), as_a_loader_sees(content))


def with_header_byte(content, position, value):
    """A PNG with a changed byte in its header, and the right checksum."""
    header = bytearray(content[16:29])
    header[position - 16] = value
    return content[:8] + png_chunk(b"IHDR", bytes(header)) + content[33:]


def without_pixels(content):
    """A PNG whose data is complete but has fewer rows than the header says."""
    start = content.index(b"IDAT")
    data = zlib.decompress(content[start + 4 : -16])
    fewer = zlib.compress(data[: len(data) // 2])
    return content[: start - 4] + png_chunk(b"IDAT", fewer) + png_chunk(b"IEND")


JPEG, PNG = KEPT["jpeg"], KEPT["png"]
DAMAGED = {
    "png-without-end": (PNG[:-12], "no end"),
    "png-cut-in-its-end": (PNG[:-4], "no end"),
    "png-wrong-data-checksum": (PNG[:-13] + bytes([PNG[-13] ^ 1]) + PNG[-12:], "checksum of chunk"),
    "png-fewer-rows": (without_pixels(PNG), "bytes of pixel data"),
    "png-taller-header": (with_header_byte(PNG, 22, 1), "bytes of pixel data"),
    "interlaced-png-fewer-rows": (without_pixels(KEPT["interlaced-png"]), "damaged"),
    "png-compression-method": (with_header_byte(PNG, 26, 1), "unknown compression"),
    "jpeg-without-end": (JPEG[:-2], "truncated"),
    "jpeg-cut-in-its-end": (JPEG[:-1], "truncated"),
    "jpeg-stray-bytes": (JPEG[:20] + b"stray" + JPEG[20:], "stray bytes"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_dali_refuses_is_rejected(name, dali):
    content, message = DAMAGED[name]
    assert dali.decode(content) is None
    with pytest.raises(Rejected, match=message):
        pack_image(content, ImageOptions())


@pytest.mark.filterwarnings("ignore:Tag data larger than file")  # Pillow's, on damaged EXIF
@pytest.mark.parametrize("seed", range(4))
def test_dali_decodes_whatever_damage_is_accepted(seed, dali):
    """Random damage: bits, bytes, insertions, deletions, cuts; for PNGs with right checksums too.

    Each image of KEPT is altered 15 times.
    """
    rng, accepted = random.Random(seed), 0
    for content in KEPT.values():
        for _ in range(15):
            altered = damage(content, rng)
            try:
                packed = pack_image(altered, ImageOptions()).content
            except Rejected:
                continue
            accepted += packed == altered
            assert np.array_equal(dali.decode(packed), as_a_loader_sees(packed))
    assert accepted > 10


def damage(content, rng):
    altered = bytearray(content)
    position = rng.randrange(8, len(altered) if rng.random() < 0.5 else min(len(altered), 200))
    kind = rng.randrange(5)
    if kind == 0:
        altered[position] ^= 1 << rng.randrange(8)
    elif kind == 1:
        altered[position] = rng.randrange(256)
    elif kind == 2:
        del altered[position : position + rng.randrange(1, 5)]
    elif kind == 3:
        altered[position:position] = rng.choice([b"\xff", b"\0", rng.randbytes(3)])
    else:
        del altered[position:]
    if content.startswith(b"\x89PNG") and rng.random() < 0.5:
        altered = right_checksums(altered)
    return bytes(altered)


def right_checksums(png):
    """``png`` with the checksums of its content, as far as its chunks can be followed."""
    position = 8
    while position + 12 <= len(png):
        end = position + 8 + int.from_bytes(png[position : position + 4], "big")
        if end + 4 > len(png):
            break
        png[end : end + 4] = zlib.crc32(png[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return png


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"no image", "not a readable image"),
        (KEPT["jpeg"][:-300], "truncated"),
        (KEPT["png"][:-300], "damaged"),
        (encoded(Image.new("F", (5, 5)), "TIFF"), "32-bit"),
        (
            encoded(Image.new("RGB", (2000, 2000)), "PNG"),
            "2000 x 2000 pixels are more than the limit of 1,000,000$",
        ),
    ],
    ids=["empty", "text", "truncated-jpeg", "truncated-png", "float", "bomb"],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(content, message):
    with pytest.raises(Rejected, match=message):
        pack_image(content, ImageOptions(max_pixels=10**6))


def test_without_the_decode_check_headers_are_read_only():
    packed = pack_image(KEPT["jpeg"][:-300], ImageOptions(decode_check=False))
    assert (packed.width, packed.height) == (33, 24)


def test_shrunk_images_keep_their_shape_and_lose_their_exif():
    packed = pack_image(KEPT["rotated-jpeg"], ImageOptions(resize_short=12))
    assert (packed.width, packed.height, packed.extension) == (16, 12, "jpg")
    assert not Image.open(io.BytesIO(packed.content)).getexif()
