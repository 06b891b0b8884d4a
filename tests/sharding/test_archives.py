"""The members of tar archives are listed completely and safely, or the archive is refused."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile

import pytest

from runtime.errors import PackError
from sharding.sources.containers.archives import members

BLOCK = 512


def archive(*entries):
    """A tar of (name, content, type) entries; of links, ``content`` is the target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as writer:
        for name, content, kind in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = content.decode()
            else:
                entry.size = len(content)
            writer.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def files(*pairs):
    return archive(*((name, content, tarfile.REGTYPE) for name, content in pairs))


def listed(content, within=None):
    return list(members(io.BytesIO(content), "a.tar", within))


def with_checksum(header):
    """The header with the checksum that it has to have."""
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def changed(content, place, value):
    """The archive with ``value`` at ``place`` of its first header."""
    header = content[:place] + value + content[place + len(value) : BLOCK]
    return with_checksum(header) + content[BLOCK:]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_archive_is_called_so(compress):
    with pytest.raises(PackError, match="is compressed; decompress it first"):
        listed(compress(files(("1.jpg", b"image"))))


def test_files_are_listed_with_their_places():
    content = archive(
        ("folder", b"", tarfile.DIRTYPE),
        ("./folder/1.JPEG", b"one", tarfile.REGTYPE),
        ("x" * 200, b"two" * 1000, tarfile.REGTYPE),
        ("empty", b"", tarfile.REGTYPE),
    )
    found = listed(content)
    assert [(name, size) for name, _, size in found] == [
        ("folder/1.JPEG", 3),
        ("x" * 200, 3000),
        ("empty", 0),
    ]
    assert [content[offset : offset + 3] for _, offset, _ in found[:2]] == [b"one", b"two"]


def test_the_members_of_a_member_have_places_in_the_outer_archive():
    inner = files(("1.JPEG", b"one"), ("2.JPEG", b"two"))
    outer = files(("first.tar", files(("0.JPEG", b"zero"))), ("inner.tar", inner))
    found = listed(outer, listed(outer)[1])
    assert [name for name, *_ in found] == ["1.JPEG", "2.JPEG"]
    assert [outer[offset : offset + size] for _, offset, size in found] == [b"one", b"two"]


def test_a_member_does_not_reach_beyond_the_archive_that_it_is_in():
    inner = files(("1.JPEG", b"1" * 5000))[:3000]
    outer = files(("inner.tar", inner), ("next", b"2" * 9000))
    with pytest.raises(PackError, match=r"inner\.tar in a\.tar is truncated .* '1\.JPEG'"):
        listed(outer, listed(outer)[0])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("../out", b"", tarfile.REGTYPE), "leads out"),
        (("a/../../out", b"", tarfile.REGTYPE), "leads out"),
        (("/etc/passwd", b"", tarfile.REGTYPE), "leads out"),
        (("../out", b"", tarfile.DIRTYPE), "leads out"),
        (("link", b"target", tarfile.SYMTYPE), "a link"),
        (("link", b"target", tarfile.LNKTYPE), "a link"),
        (("pipe", b"", tarfile.FIFOTYPE), "not a file"),
        (("device", b"", tarfile.CHRTYPE), "not a file"),
        (("device", b"", tarfile.BLKTYPE), "not a file"),
        (("hole", b"", tarfile.GNUTYPE_SPARSE), "a sparse file"),
    ],
)
def test_what_is_not_a_plain_file_inside_is_refused(entry, message):
    content = archive(("ok", b"1", tarfile.REGTYPE), entry)
    with pytest.raises(PackError, match=message):
        listed(content)


@pytest.mark.parametrize("end", [0, 100, BLOCK, 700, 2 * BLOCK, 3 * BLOCK])
def test_an_archive_cut_anywhere_is_refused(end):
    with pytest.raises(PackError, match="get it again"):
        listed(files(("1.JPEG", b"1" * 300), ("2.JPEG", b"2" * 300))[:end])


def test_what_follows_the_end_is_not_ignored():
    with pytest.raises(PackError, match="data after its end"):
        listed(files(("1.JPEG", b"1")) + files(("2.JPEG", b"2")))


def test_a_damaged_header_between_members_is_not_the_end():
    content = bytearray(files(("1.JPEG", b"1"), ("2.JPEG", b"2")))
    content[2 * BLOCK] ^= 0xFF
    with pytest.raises(PackError, match=r"damaged after '1\.JPEG': no header"):
        listed(bytes(content))


def hostile():
    """Archives that make a trusting reader hang, recurse, or fill the memory."""
    plain = files(("1.JPEG", b"1"))
    yield "negative size", changed(plain, 124, b"\xff" * 12)
    yield "size beyond", changed(plain, 124, b"\x80" + struct.pack(">3xq", 2**62))
    yield "no name", changed(plain, 0, bytes(100))
    yield "long name of 8 GB", changed(changed(plain, 156, b"L"), 124, b"77777777777\0")
    yield "negative long name", changed(changed(plain, 156, b"L"), 124, b"\xff" * 12)
    name = archive(*[("n" * 9, b"name\0", b"L")] * 2000)
    yield "long names of long names", name
    yield "extended sparse header without end", changed(changed(plain, 156, b"S"), 482, b"\x01")
    record = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    pax = archive(("p", record, tarfile.XHDTYPE), ("1.JPEG", b"9" * BLOCK, tarfile.REGTYPE))
    yield "sparse map without end", pax[: 4 * BLOCK]


@pytest.mark.parametrize(("kind", "content"), list(hostile()), ids=[kind for kind, _ in hostile()])
def test_a_hostile_archive_is_refused(kind, content):
    with pytest.raises(PackError):
        listed(content)


def test_a_large_archive_is_listed_by_its_headers_alone():
    """Contents are skipped: of 50 MB, less than one is read."""
    content = files(*((f"{number}.JPEG", bytes(10**6)) for number in range(50)))
    read = 0

    class Counting(io.BytesIO):
        def read(self, size=-1):
            nonlocal read
            found = super().read(size)
            read += len(found)
            return found

    assert len(list(members(Counting(content), "a.tar"))) == 50
    assert read < 10**6
