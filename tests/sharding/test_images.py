"""What a pack keeps, converts and rejects, image by image."""

import io

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

from sharding.images import ImageOptions, Rejected, pack_image

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


KEPT = {
    "jpeg": encoded(RGB, "JPEG"),
    "progressive": encoded(RGB, "JPEG", progressive=True),
    "gray-jpeg": encoded(RGB.convert("L"), "JPEG"),
    "rotated-jpeg": encoded(RGB, "JPEG", exif=exif_rotated()),
    "png": encoded(RGB, "PNG"),
    "gray-png": encoded(RGB.convert("L"), "PNG"),
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
    assert (packed.width, packed.height) == (33, 24)


@pytest.mark.parametrize("name", CONVERTED)
def test_the_rest_becomes_a_png_of_the_same_pixels(name):
    packed = pack_image(CONVERTED[name], ImageOptions())
    assert packed.extension == "png"
    assert np.array_equal(as_a_loader_sees(packed.content), as_a_loader_sees(CONVERTED[name]))


def test_of_16_bits_the_upper_8_stay():
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 255)
    packed = pack_image(encoded(deep, "PNG"), ImageOptions())
    assert np.array_equal(as_a_loader_sees(packed.content)[..., 1], PIXELS[..., 0])


def test_dali_decodes_all_that_is_packed():
    contents = [
        np.frombuffer(pack_image(content, ImageOptions()).content, dtype=np.uint8)
        for content in {**KEPT, **CONVERTED}.values()
    ]

    @pipeline_def(batch_size=len(contents), num_threads=1, device_id=None)
    def graph():
        files = fn.external_source(source=[contents], dtype=types.UINT8)
        return fn.decoders.image(files, output_type=types.RGB, adjust_orientation=False)

    (images,) = graph().run()
    for number, content in enumerate(contents):
        assert np.array_equal(images.at(number), as_a_loader_sees(content.tobytes()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"no image", "not a readable image"),
        (KEPT["jpeg"][:-300], "truncated"),
        (KEPT["png"][:-300], "damaged"),
        (encoded(Image.new("F", (5, 5)), "TIFF"), "32 bit"),
        (encoded(Image.new("RGB", (2000, 2000)), "PNG"), "2000 x 2000 pixels are more"),
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
