"""The structure of JPEG and PNG files, checked as strictly as DALI's decoders do.

Pillow decodes some damaged files that DALI refuses: JPEGs with stray bytes between two segments;
PNGs with a wrong checksum, without an end, or with fewer rows than their header says. Such a file
in a pack would stop its readers.
"""

import zlib

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3}  # by color type: gray, RGB
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # of each pass: first column, first row, steps  # fmt: skip
_PIECE = 1 << 20
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])  # TEM, RST0 to RST7, SOI


def structural_fault(content: bytes) -> str | None:
    """What is wrong with the structure of ``content``, in words, or None. It is a JPEG, or a PNG of
    8-bit gray or RGB pixels, that Pillow decodes."""
    return _png_fault(content) if content.startswith(_PNG_SIGNATURE) else _jpeg_fault(content)


def _png_fault(content: bytes) -> str | None:
    """Every chunk up to IEND has to be complete (RFC 2083, section 3.2), and the checksum of every
    critical one right. What follows IEND does not count."""
    position = len(_PNG_SIGNATURE)
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
    """Whether the compressed data holds all rows: one byte for the filter, then the pixels."""
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
    """Each segment up to the first scan has to begin where the one before it ends (ITU-T T.81,
    annex B)."""
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            return "stray bytes between two segments"
        marker = content[position + 1]
        if marker == _START_OF_SCAN:
            return None
        if marker == 0xFF:
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return "no image data (SOS)"
