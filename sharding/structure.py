"""The structure of JPEG and PNG files, checked as strictly as DALI's decoders do.

Pillow decodes some damaged files that DALI refuses: JPEGs with stray bytes between two segments;
PNGs with a wrong checksum, without an end, or with fewer rows than their header states. Such a file
in a pack would stop every reader.
"""

import zlib

from sharding.format.files import MalformedError
from sharding.format.header import PNG_SIGNATURE, jpeg_size

_PNG_CHANNELS = {0: 1, 2: 3}  # by color type: gray, RGB
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # per pass: first column, first row, column step, row step  # fmt: skip
_PIECE = 1 << 20


def structural_fault(content: bytes) -> str | None:
    """Describe what is wrong with the structure of ``content``; None if it is sound. ``content`` is
    a JPEG, or a PNG of 8-bit gray or RGB pixels, that Pillow decodes."""
    return _png_fault(content) if content.startswith(PNG_SIGNATURE) else _jpeg_fault(content)


def _png_fault(content: bytes) -> str | None:
    """Every chunk up to IEND must be complete (RFC 2083, section 3.2), and every critical one must
    match its checksum. Bytes after IEND are ignored."""
    position = len(PNG_SIGNATURE)
    compressed: list[bytes] = []
    while position + 12 <= len(content):
        kind = content[position + 4 : position + 8]
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        if end + 4 > len(content):
            break
        critical = not kind[0] & 0x20
        crc = int.from_bytes(content[end : end + 4], "big")
        if critical and zlib.crc32(content[position + 4 : end]) != crc:
            return f"wrong checksum of chunk {kind.decode('ascii', 'backslashreplace')}"
        if kind == b"IEND":
            return _png_header_fault(content) or _png_data_fault(content, compressed)
        if kind == b"IDAT":
            compressed.append(content[position + 8 : end])
        position = end + 4
    return "no end (IEND)"


def _png_header_fault(content: bytes) -> str | None:
    if content[8:16] != b"\0\0\0\rIHDR":
        return "no header (IHDR) at the start"
    methods = (content[26], content[27])
    return f"unknown compression or filter method {methods}" if any(methods) else None


def _png_data_fault(content: bytes, compressed: list[bytes]) -> str | None:
    """The compressed data must hold all rows, each a filter byte and then the pixels."""
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    channels, interlaced = _PNG_CHANNELS[content[25]], content[28]
    expected = 0
    for x, y, step_x, step_y in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            expected += rows * (1 + columns * channels)
    inflate, size = zlib.decompressobj(), 0
    for data in compressed:
        while data and size < expected:
            size += len(inflate.decompress(data, _PIECE))
            data = inflate.unconsumed_tail
    return None if size >= expected else f"{size} of {expected} bytes of pixel data"


def _jpeg_fault(content: bytes) -> str | None:
    try:
        jpeg_size(content)
    except MalformedError as error:
        return str(error)
    return None
