"""Damage of a pack is named by `verify` and removed by `verify --repair`."""

import os
import shutil

import pytest

from sharding.__main__ import main
from sharding.format.index import key_name
from sharding.format.opening import open_pack
from sharding.listing import write_listing
from sharding.shard_plan import PackOptions
from sharding.sources.imagefolder import imagefolder
from tests.common import files_of, flip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda pack, offset: flip(pack / "shard-000001.tar", offset + 50),
            "is damaged: its checksum",
        ),
        (
            lambda pack, offset: flip(pack / "shard-000001.tar", offset - 500),
            "tar header that does not match",
        ),
        (lambda pack, _: flip(pack / "shard-000001.tar", -1), "has changed outside"),
        (
            lambda pack, offset: os.truncate(pack / "shard-000001.tar", offset + 9),
            "bytes instead of",
        ),
        (lambda pack, _: (pack / "shard-000001.tar").unlink(), "is missing or empty"),
        (
            lambda pack, _: shutil.copy(pack / "shard-000000.idx", pack / "shard-000001.idx"),
            "is not the index of",
        ),
    ],
    ids=["byte", "header", "end", "truncated", "missing", "foreign-index"],
)
def test_verify_names_damage_and_repair_removes_it(
    damage, message, pack, pack_path, image_tree, capsys
):
    index = open_pack(pack).index
    row = (index.shard == 1).nonzero()[0][1]
    damage(pack, int(index.offset[row]))
    assert main(["verify", str(pack), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert message in printed
    if "sample" in printed:
        assert key_name(index.key[row]) in printed
    assert main(["verify", str(pack), "--repair", "--root", str(image_tree)]) == 0
    assert files_of(pack) == files_of(pack_path)
    assert main(["verify", str(pack), "--decode"]) == 0


def test_repair_refuses_another_tree(pack, image_tree, tmp_path, capsys):
    flip(pack / "shard-000001.tar", -1)
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    (tree / "day" / "ant" / "0.jpg").unlink()
    before = files_of(pack)
    assert main(["verify", str(pack), "--repair", "--root", str(tree)]) == 2
    assert "a tree with different files" in capsys.readouterr().err
    assert files_of(pack) == before


def test_repair_clears_away_what_a_killed_repair_left(pack, pack_path, image_tree, tmp_path):
    flip(pack / "shard-000001.tar", -1)
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    (tree / "day" / "ant" / "0.jpg").unlink()
    write_listing(imagefolder(tree), PackOptions(), pack / ".work" / "listing")
    (pack / ".work" / "shard-000001.tar").write_bytes(b"cut short")
    assert main(["verify", str(pack), "--repair", "--root", str(image_tree)]) == 0
    assert files_of(pack) == files_of(pack_path)
    assert not (pack / ".work").exists()
