"""Files that are too large, are not regular, or have odd names."""

import json
import os
import shutil
from pathlib import Path

from PIL import Image

from sharding.__main__ import main
from sharding.format.opening import open_pack
from tests.common import files_of
from tests.sharding.runs import pack_inline


def test_a_bomb_is_rejected_without_being_decoded(tmp_path, monkeypatch):
    folder = tmp_path / "tree" / "class"
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 200)).save(folder / "large.png")
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    options = ["--max-pixels", "10000"]
    arguments = ["pack", "imagefolder", "--root", str(folder.parent), "--out", str(tmp_path / "p")]
    assert main([*arguments, *options]) == 0
    assert "300 x 200 pixels" in (tmp_path / "p" / "rejects.jsonl").read_text()


def test_names_that_are_no_utf8_or_very_long_are_packed(tmp_path):
    folder = tmp_path / "tree" / "class"
    folder.mkdir(parents=True)
    names = [b"caf\xe9.jpg", b"x" * 250 + b".jpg", b"new\nline.jpg"]
    for name in names:
        Image.new("RGB", (20, 20)).save(folder / "plain.jpg")
        os.rename(folder / "plain.jpg", os.path.join(os.fsencode(folder), name))
    pack_inline(folder.parent, tmp_path / "pack")
    sources = open_pack(tmp_path / "pack").read_sources().to_pylist()
    assert sorted(sources) == sorted(
        ["class/caf\\xe9.jpg", f"class/{'x' * 250}.jpg", "class/new\nline.jpg"]
    )


def test_what_is_not_a_regular_file_of_usual_size_is_rejected_unread(image_tree, tmp_path):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    folder = tree / "day" / "ant"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "endless.jpg").symlink_to("/proc/self/mountinfo")
    with (folder / "sparse.jpg").open("wb") as sparse:
        sparse.truncate(9 * 10**9)
    assert pack_inline(tree, tmp_path / "pack").samples == 60
    lines = (tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()
    reasons = {Path(reject["source"]).stem: reject["reason"] for reject in map(json.loads, lines)}
    assert reasons.pop("sparse").startswith("9,000,000,000 bytes are more than")
    assert reasons.pop("endless").startswith("does not have the 0 bytes")
    assert reasons == dict.fromkeys(("pipe", "zero", "folder"), "not a regular file")


def test_the_reasons_for_rejects_do_not_depend_on_where_the_tree_is(image_tree, tmp_path):
    for place in ("here", "there"):
        tree = shutil.copytree(image_tree, tmp_path / place)
        (tree / "day" / "ant" / "gone.jpg").symlink_to("nowhere")
        pack_inline(tree, tmp_path / f"pack-{place}")
    assert files_of(tmp_path / "pack-here") == files_of(tmp_path / "pack-there")
