"""The size of a JPEG or PNG image by its header alone, without decoding a pixel."""

import zlib
from typing import NamedTuple

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # the signature and the start of the first chunk
_PNG_HEADER = slice(12, 29)  # the part of the first chunk that its checksum covers
_PNG_HEADER_END = 33
_JPEG_START = b"\xff\xd8\xff"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_JPEG_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])  # TEM, RST0 to RST7, SOI
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


class PixelSize(NamedTuple):
    """Width and height of an image in pixels, both at least 1."""

    width: int
    height: int


def pixel_size(content: bytes | memoryview) -> PixelSize | None:
    """The size that the header of the encoded image ``content`` states, or None where it is not a
    JPEG (ITU-T T.81, annex B) or PNG (RFC 2083, section 4.1.1) image with a readable header.

    ``content`` is a one-dimensional buffer of unsigned bytes. A JPEG's EXIF orientation is ignored.
    """
    start = bytes(content[:_PNG_HEADER_END])
    if start.startswith(_PNG_START):
        return _png_size(start)
    return _jpeg_size(content) if start.startswith(_JPEG_START) else None


def _png_size(start: bytes) -> PixelSize | None:
    if len(start) < _PNG_HEADER_END:
        return None
    if zlib.crc32(start[_PNG_HEADER]) != int.from_bytes(start[_PNG_HEADER.stop :], "big"):
        return None
    return _size(int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big"))


def _jpeg_size(content: bytes | memoryview) -> PixelSize | None:
    """Follow the segments up to the frame header. Bytes between two segments that are not a marker
    are skipped, as libjpeg does."""
    position, end = 2, len(content) - 9  # a frame header's size ends 9 bytes after its marker
    while position <= end:
        marker = content[position + 1]
        if content[position] != 0xFF or marker in (0x00, 0xFF):
            position += 1
        elif marker in _JPEG_FRAMES:
            height = content[position + 5] << 8 | content[position + 6]
            return _size(content[position + 7] << 8 | content[position + 8], height)
        elif marker in (_JPEG_SCAN, _JPEG_END):
            return None
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + (content[position + 2] << 8 | content[position + 3])
    return None


def _size(width: int, height: int) -> PixelSize | None:
    return PixelSize(width, height) if width and height else None
