"""A tree of images may hold anything: what cannot be packed is rejected by name, within bounds."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from alterations import GOOD, REFUSED, Registry, expect, thinned
from alterations_files import KINDS, SECRET
from pack_files import REJECTS

from tests.common import png

TREES = Registry()  # of the image ``day/ant/0.jpg``
REJECTED = expect([GOOD])  # and the file is named among the rejects
EITHER = expect([GOOD, REFUSED], results=False)

for kind in KINDS:
    slug = f"image-is-{kind.__name__.replace('_', '-')}"
    unnamed = kind.__name__ in ("missing", "a_folder", "a_link_to_the_same_outside")
    TREES.add(slug, EITHER if unnamed else REJECTED, kind)


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _cut_png(count: int, path: Path) -> None:
    content = (path.parent / "4.png").read_bytes()
    path.write_bytes(content[:-count])


def _wrong_last_checksum(path: Path) -> None:
    content = (path.parent / "4.png").read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


TREES.add("image-is-a-png-of-60000-pixels", REJECTED, partial(_write, png(60000, 60000, b"")))
TREES.add("image-is-a-png-of-no-pixels", REJECTED, partial(_write, png(0, 0, b"")))
TREES.add("image-is-a-png-without-pixels", REJECTED, partial(_write, png(50, 50, b"")))
TREES.add("image-is-a-png-without-end", REJECTED, partial(_cut_png, 12))
TREES.add("image-is-a-png-without-its-last-byte", REJECTED, partial(_cut_png, 1))
TREES.add("image-is-a-png-with-a-wrong-last-checksum", REJECTED, _wrong_last_checksum)
TREES.add("image-is-html", REJECTED, partial(_write, b"<html><script>alert(1)</script></html>"))
TREES.add("image-is-svg", REJECTED, partial(_write, b'<svg xmlns="http://www.w3.org/2000/svg"/>'))
TREES.add("image-is-its-first-bytes", REJECTED, partial(_write, b"\xff\xd8\xff"))


def _more(name: str | bytes, make: Callable[[bytes], object], path: Path) -> None:
    make(os.path.join(os.fsencode(path.parent), os.fsencode(name)))


def _copy(path: bytes) -> None:
    shutil.copy(os.path.join(os.path.dirname(path), b"1.jpg"), path)


for slug, name in (
    ("is-not-unicode", b"\xff\xfe.jpg"),
    ("has-two-lines", "a\nb.jpg"),
    ("has-an-escape", "\x1b[2J.jpg"),
    ("is-markup", "[red][.jpg"),
    ("is-a-formula", "=1+1.jpg"),
    ("is-very-long", "a" * 250 + ".jpg"),
):
    TREES.add(f"name-of-one-more-{slug}", EITHER, partial(_more, name, _copy))


@TREES(EITHER)
def a_class_is_not_unicode(path: Path) -> None:
    os.mkdir(os.path.join(os.fsencode(path.parents[1]), b"\xff"))
    _copy_into = os.path.join(os.fsencode(path.parents[1]), b"\xff", b"0.jpg")
    shutil.copy(path, _copy_into)


@TREES(EITHER)
def a_class_links_to_its_parent(path: Path) -> None:
    (path.parents[1] / "loop").symlink_to(".")


@TREES(EITHER)
def a_class_links_to_the_root(path: Path) -> None:
    (path.parents[1] / "root").symlink_to("/")


@TREES(EITHER)
def a_domain_is_a_fifo(path: Path) -> None:
    os.mkfifo(path.parents[2] / "dusk")


@TREES(EITHER)
def the_tree_is_a_fifo(path: Path) -> None:
    shutil.rmtree(path.parents[2])
    os.mkfifo(path.parents[2])


@TREES(EITHER)
def the_tree_is_empty(path: Path) -> None:
    shutil.rmtree(path.parents[2])
    path.parents[2].mkdir()


@pytest.mark.parametrize("alteration", thinned(TREES, 3))
def test_packing_rejects_by_name_or_refuses(alteration, kit, runner):
    tree, pack = kit.room.parent / "out" / "tree", kit.room / "pack"
    shutil.copytree(kit.tree, tree)
    alteration.apply(tree / "day" / "ant" / "0.jpg")
    options = ("imagefolder", "--root", tree, "--out", pack, "--workers", "1")
    (outcome,) = runner.run(kit.sharding("pack", "pack", *options))
    assert not outcome.breaches(), "\n".join(outcome.breaches())
    assert outcome.status in alteration.expectation.of("pack"), outcome
    if outcome.status == GOOD:
        (verified,) = runner.run(
            kit.sharding("verify", "verify", pack, "--workers", "1", "--decode")
        )
        assert (verified.status, verified.breaches()) == (GOOD, []), verified
        assert not any(SECRET.encode() in path.read_bytes() for path in pack.iterdir())
    if alteration.expectation is REJECTED:
        rejects = [json.loads(line) for line in (pack / REJECTS).read_text("utf-8").splitlines()]
        assert ["day/ant/0.jpg" in reject.values() for reject in rejects] == [True], "not rejected"
