"""Alterations of the shards, of DALI's indexes and of what else lies in a pack's folder."""

import os
import shutil
import struct
from functools import partial
from pathlib import Path

from alterations import FOUND, GOOD, REFUSED, Registry, expect
from alterations_files import KINDS, a_link_to_a_secret, neighbor
from pack_expectations import DAMAGED, FORGED_IMAGE, FORGED_UNDECODABLE, HARMLESS, INVALID, UNREAD
from pack_files import (
    BLOCK,
    DALI_INDEX,
    INDEX,
    MANIFEST,
    REJECTS,
    SHARD,
    change_values,
    find_row,
    manifest,
    overwrite,
    read_image,
    reseal_image,
    reseal_shard,
    row,
    write_image,
)

from tests.common import flip, png

SHARDS = Registry()
UNUSABLE_SHARD = expect(
    [REFUSED],
    info=(GOOD, REFUSED),
    show=(GOOD, REFUSED),
    verify=(FOUND, REFUSED),
    decode=(FOUND, REFUSED),
    repair=(GOOD, FOUND, REFUSED),
)

for file, expectation in (
    (MANIFEST, INVALID),
    (INDEX, INVALID),
    (SHARD, UNUSABLE_SHARD),
    (DALI_INDEX, UNREAD),
    (REJECTS, HARMLESS),
):
    for kind in KINDS:
        if (file, kind.__name__) != (REJECTS, "empty"):  # as it is
            slug = f"{file}-is-{kind.__name__.replace('_', '-')}"
            SHARDS.add(slug, expectation, lambda pack, k=kind, f=file: k(pack / f))


def _resize(change: int, pack: Path) -> None:
    os.truncate(pack / SHARD, (pack / SHARD).stat().st_size + change)


for change in (-1, -10240, 1, 10240):
    slug = f"shard-is-{abs(change)}-bytes-{'longer' if change > 0 else 'shorter'}"
    SHARDS.add(slug, UNUSABLE_SHARD, partial(_resize, change))


@SHARDS(DAMAGED)
def shard_is_zeros(pack: Path) -> None:
    (pack / SHARD).write_bytes(bytes((pack / SHARD).stat().st_size))


@SHARDS(DAMAGED)
def two_shards_change_places(pack: Path) -> None:
    first, second = pack / SHARD, pack / "shard-000001.tar"
    content = first.read_bytes(), second.read_bytes()
    assert len(content[0]) == len(content[1])
    first.write_bytes(content[1])
    second.write_bytes(content[0])


@SHARDS(HARMLESS)
def shard_is_a_hard_link(pack: Path) -> None:
    os.link(pack / SHARD, neighbor(pack / SHARD) / "hard-link")


@SHARDS(UNREAD)
def a_bit_of_an_image_header_in_the_tar_is_flipped(pack: Path) -> None:
    flip(pack / SHARD, row(pack, 0)["offset"] - BLOCK + 2)


@SHARDS(UNREAD)
def a_bit_of_a_label_header_in_the_tar_is_flipped(pack: Path) -> None:
    flip(pack / SHARD, _label(pack) - BLOCK + 130)


@SHARDS(UNREAD)
def a_label_in_the_tar_is_another(pack: Path) -> None:
    overwrite(pack / SHARD, _label(pack), b"3")


@SHARDS(UNREAD)
def a_label_in_the_tar_is_not_a_number(pack: Path) -> None:
    overwrite(pack / SHARD, _label(pack), b"\xff")


@SHARDS(UNREAD)
def a_label_in_a_resealed_tar_is_another(pack: Path) -> None:
    overwrite(pack / SHARD, _label(pack), b"3")
    reseal_shard(pack)


@SHARDS(UNREAD)
def padding_after_an_image_is_not_zero(pack: Path) -> None:
    place = row(pack, 0)
    overwrite(pack / SHARD, place["offset"] + place["size"], b"\x01")


@SHARDS(UNREAD)
def the_end_of_the_tar_is_not_zero(pack: Path) -> None:
    flip(pack / SHARD, -1)


@SHARDS(UNREAD)
def a_name_in_a_resealed_tar_leads_out_of_the_folder(pack: Path) -> None:
    overwrite(pack / SHARD, row(pack, 0)["offset"] - BLOCK, b"../../../evil.jpg\0")
    reseal_shard(pack)


def _label(pack: Path) -> int:
    place = row(pack, 0)
    return place["offset"] + place["size"] + -place["size"] % BLOCK + BLOCK


def _flip_image(suffix: str, share: float, pack: Path) -> None:
    number = find_row(pack, suffix)
    content = bytearray(read_image(pack, number))
    content[int(share * len(content))] ^= 1
    write_image(pack, number, bytes(content))


def _without_end(pack: Path) -> None:
    number = find_row(pack, "4.png")
    write_image(pack, number, read_image(pack, number)[:-12])


for share in (0.0, 0.02, 0.5, 0.7, 0.9):
    slug = f"a-bit-of-a-jpeg-is-flipped-at-{share:.0%}".replace("%", "-percent")
    SHARDS.add(slug, DAMAGED, partial(_flip_image, "0.jpg", share))
for share in (0.0, 0.1, 0.5, 0.95):
    slug = f"a-bit-of-a-png-is-flipped-at-{share:.0%}".replace("%", "-percent")
    SHARDS.add(slug, DAMAGED, partial(_flip_image, "4.png", share))
SHARDS.add("a-png-has-no-end", DAMAGED, _without_end)


def _forge(number: int, content: bytes, pack: Path) -> None:
    write_image(pack, number, content)
    reseal_image(pack, number)


@SHARDS(FORGED_UNDECODABLE)
def a_forged_png_has_no_end(pack: Path) -> None:
    _without_end(pack)
    reseal_image(pack, find_row(pack, "4.png"))


@SHARDS(FORGED_UNDECODABLE)
def a_forged_jpeg_ends_in_its_middle(pack: Path) -> None:
    number = find_row(pack, "0.jpg")
    content = read_image(pack, number)
    _forge(number, content[: len(content) // 2], pack)


@SHARDS(FORGED_UNDECODABLE)
def a_forged_image_is_text(pack: Path) -> None:
    _forge(0, b"<script>alert(1)</script>", pack)


@SHARDS(FORGED_UNDECODABLE)
def a_forged_image_is_only_its_first_bytes(pack: Path) -> None:
    _forge(0, b"\xff\xd8\xff", pack)


@SHARDS(FORGED_IMAGE)
def a_forged_image_is_a_png_of_one_pixel(pack: Path) -> None:
    _forge(find_row(pack, "4.png"), png(1, 1, b"\0\0\0\0"), pack)


@SHARDS(FORGED_IMAGE)
def a_forged_jpeg_says_that_it_is_65500_pixels_wide(pack: Path) -> None:
    number = find_row(pack, "0.jpg")
    _forge(number, _enlarged(read_image(pack, number)), pack)


@SHARDS(FORGED_UNDECODABLE)
def a_forged_jpeg_is_of_65500_pixels_and_the_index_agrees(pack: Path) -> None:
    number = find_row(pack, "0.jpg")
    change_values(pack, "width", [number], 65500)
    change_values(pack, "height", [number], 65500)
    _forge(number, _enlarged(read_image(pack, number)), pack)


@SHARDS(FORGED_UNDECODABLE)
def a_forged_png_is_of_60000_pixels_and_the_index_agrees(pack: Path) -> None:
    number = find_row(pack, "4.png")
    change_values(pack, "width", [number], 60000)
    change_values(pack, "height", [number], 60000)
    _forge(number, png(60000, 60000, bytes(1000)), pack)


def _enlarged(jpeg: bytes) -> bytes:
    """A JPEG whose frame header says 65500 x 65500."""
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 9 :]


def _dali_index(content: bytes, pack: Path) -> None:
    (pack / DALI_INDEX).write_bytes(content)


for slug, content in {
    "is-undecodable": b"\xff\xfe\x80\n",
    "is-of-another-version": b"v9.9 10\n",
    "promises-more-than-it-has": b"v1.2 1000000\n",
}.items():
    SHARDS.add(f"dali-index-{slug}", UNREAD, partial(_dali_index, content))


@SHARDS(UNREAD)
def dali_index_has_another_offset(pack: Path) -> None:
    text = (pack / DALI_INDEX).read_text()
    _dali_index(text.replace(" 512 ", " 1024 ", 1).encode(), pack)


@SHARDS(HARMLESS)
def rejects_are_nested_too_deeply(pack: Path) -> None:
    (pack / REJECTS).write_text("[" * 100_000)


@SHARDS(HARMLESS)
def a_folder_more_lies_in_the_pack(pack: Path) -> None:
    (pack / "more").mkdir()


@SHARDS(HARMLESS)
def a_script_more_lies_in_the_pack(pack: Path) -> None:
    (pack / "sitecustomize.py").write_text("raise SystemExit('executed')")


@SHARDS(HARMLESS)
def a_fifo_more_lies_in_the_pack(pack: Path) -> None:
    os.mkfifo(pack / "more")


@SHARDS(HARMLESS)
def a_link_to_a_secret_lies_in_the_pack(pack: Path) -> None:
    (pack / "more").write_bytes(b"")
    a_link_to_a_secret(pack / "more")


@SHARDS(HARMLESS)
def a_link_to_dev_zero_lies_in_the_pack(pack: Path) -> None:
    (pack / "more").symlink_to("/dev/zero")


@SHARDS(HARMLESS)
def nine_gigabytes_more_lie_in_the_pack(pack: Path) -> None:
    with (pack / "more").open("wb") as file:
        file.truncate(9 << 30)


@SHARDS(INVALID)
def pack_is_an_empty_folder(pack: Path) -> None:
    shutil.rmtree(pack)
    pack.mkdir()


@SHARDS(INVALID)
def pack_is_a_file(pack: Path) -> None:
    shutil.rmtree(pack)
    pack.write_text("a pack")


@SHARDS(INVALID)
def pack_is_a_fifo(pack: Path) -> None:
    shutil.rmtree(pack)
    os.mkfifo(pack)


@SHARDS(INVALID)
def pack_is_a_link_to_itself(pack: Path) -> None:
    shutil.rmtree(pack)
    pack.symlink_to(pack.name)


@SHARDS(HARMLESS)
def pack_is_a_link_to_the_pack(pack: Path) -> None:
    moved = neighbor(pack / SHARD) / "pack"
    shutil.move(pack, moved)
    pack.symlink_to(moved)


@SHARDS(DAMAGED)
def every_image_is_damaged(pack: Path) -> None:
    with manifest(pack) as fields:
        names = [info["name"] for info in fields["shards"]]
    for name in names:
        content = (pack / name).read_bytes()
        (pack / name).write_bytes(content.replace(b"\xff\xd8\xff", b"\xff\xd8\xfe"))
