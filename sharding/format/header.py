"""Reads the size of a JPEG or PNG image from its header, without decoding a pixel."""

import zlib
from typing import NamedTuple

from sharding.format.files import MalformedError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_START = PNG_SIGNATURE + b"\0\0\0\rIHDR"  # signature and start of the first chunk
_PNG_CHUNK = 12  # bytes of a chunk besides its data: length, type, checksum
_PNG_HEADER = slice(12, 29)  # the part of the first chunk covered by its checksum
_PNG_HEADER_END = 33
_JPEG_START = b"\xff\xd8\xff"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_JPEG_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])  # TEM, RST0 to RST7, SOI
_JPEG_SCAN = 0xDA


class PixelSize(NamedTuple):
    """Width and height of an image in pixels, both at least 1."""

    width: int
    height: int


def pixel_size(content: bytes | memoryview) -> PixelSize | None:
    """The size stated in the header of the encoded image ``content``, or None if that is not a JPEG
    (ITU-T T.81, annex B) or PNG (RFC 2083, section 4.1.1) image with a readable header.

    ``content`` is a one-dimensional buffer of unsigned bytes. A JPEG's EXIF orientation is ignored.
    The segments of a JPEG must be in order up to its first scan, and a PNG must be complete up to
    its last chunk: DALI's parsers read that far, and if one fails in a batch the process may crash
    (seen with DALI 2.4).
    """
    start = bytes(content[:_PNG_HEADER_END])
    if start.startswith(_PNG_START):
        return _png_size(start) if _is_complete_png(content) else None
    if not start.startswith(_JPEG_START):
        return None
    try:
        return jpeg_size(content)
    except MalformedError:
        return None


def jpeg_size(content: bytes | memoryview) -> PixelSize | None:
    """Walk the segments of a JPEG up to its first scan and take the size from the frame header;
    None if there is no usable one.

    Raises:
        MalformedError: a segment does not begin where the one before it ends, or there is no scan.
    """
    position, size = 2, None
    while position + 4 <= len(content):
        marker = content[position + 1]
        if content[position] != 0xFF:
            raise MalformedError("stray bytes between two segments")
        if marker == _JPEG_SCAN:
            return size
        if marker == 0xFF:  # fill bytes may precede a marker
            position += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        else:
            if marker in _JPEG_FRAMES and position + 9 <= len(content):
                height = content[position + 5] << 8 | content[position + 6]
                size = _size(content[position + 7] << 8 | content[position + 8], height)
            position += 2 + (content[position + 2] << 8 | content[position + 3])
    raise MalformedError("no image data (SOS)")


def _png_size(start: bytes) -> PixelSize | None:
    if len(start) < _PNG_HEADER_END:
        return None
    if zlib.crc32(start[_PNG_HEADER]) != int.from_bytes(start[_PNG_HEADER.stop :], "big"):
        return None
    return _size(int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big"))


def _is_complete_png(content: bytes | memoryview) -> bool:
    position = len(PNG_SIGNATURE)
    while position + _PNG_CHUNK <= len(content):
        end = position + _PNG_CHUNK + int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] == b"IEND":
            return end <= len(content)
        position = end
    return False


def _size(width: int, height: int) -> PixelSize | None:
    return PixelSize(width, height) if width and height else None
