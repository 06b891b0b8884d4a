"""Packing in parts, on a cluster, without writing, and again."""

import shutil

import pytest

from sharding.__main__ import main
from sharding.format.manifest import Manifest
from sharding.format.opening import open_pack
from tests.common import files_of
from tests.sharding.runs import pack_inline


def test_parts_in_any_order_and_a_merge_give_the_same_pack(image_tree, pack_path, tmp_path, capsys):
    out = tmp_path / "pack"
    arguments = ["pack", "imagefolder", "--root", str(image_tree), "--out", str(out)]
    arguments += ["--shard-size", "40KB", "--workers", "1", "--part"]
    assert main(["merge", str(out)]) == 2
    assert main([*arguments, "2/2"]) == 0
    assert main(["merge", str(out)]) == 2
    assert "shard 0 of" in capsys.readouterr().err
    assert main([*arguments, "1/2"]) == 0
    (out / ".shard-000000.tar.elsewhere.1.tmp").touch()  # of a part that was killed
    assert main(["merge", str(out)]) == 0
    assert files_of(out) == files_of(pack_path)


def test_a_dask_cluster_of_two_processes_writes_the_same_pack(image_tree, pack_path, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        options = ["--executor", "dask", "--scheduler", cluster.scheduler_address]
        arguments = ["pack", "imagefolder", "--root", str(image_tree), "--shard-size", "40KB"]
        assert main([*arguments, "--out", str(tmp_path / "pack"), *options]) == 0
    assert files_of(tmp_path / "pack") == files_of(pack_path)


def test_rejects_beyond_the_limit_fail_at_the_end_and_can_be_accepted(image_tree, tmp_path, capsys):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    for number in range(3):
        (tree / "day" / "ant" / f"bad{number}.jpg").write_bytes(b"no image")
    arguments = ["pack", "imagefolder", "--root", str(tree), "--out", str(tmp_path / "pack")]
    assert main([*arguments, "--max-rejects", "4%"]) == 2
    assert "3 of 63 files (4.76%) were rejected" in capsys.readouterr().err
    assert len((tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()) == 3
    assert main([*arguments, "--max-rejects", "5%"]) == 0
    assert Manifest.load(tmp_path / "pack").rejects == 3


def test_a_dry_run_prints_the_plan_and_writes_nothing(image_tree, tmp_path, capsys):
    arguments = ["pack", "imagefolder", "--root", str(image_tree), "--out", str(tmp_path / "pack")]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "60 files of 5 classes in 2 domains" in printed
    assert "rejected" not in printed
    assert not (tmp_path / "pack").exists()


def test_a_dry_run_counts_what_the_run_lists_and_what_it_will_reject(image_tree, tmp_path, capsys):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    (tree / "day" / "ant" / "empty.jpg").touch()
    (tree / "day" / "ant" / "nowhere.jpg").symlink_to("nowhere")
    (tree / "day" / "ant" / "notes.txt").write_text("not an image")
    arguments = ["pack", "imagefolder", "--root", str(tree), "--out", str(tmp_path / "pack")]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "63 files of 5 classes" in printed
    assert "2 of the files will be rejected" in printed
    assert "found only by packing" in printed
    assert main(arguments) == 0
    manifest = Manifest.load(tmp_path / "pack")
    assert (manifest.samples, manifest.rejects) == (60, 3)


def test_a_changed_tree_packed_again_in_the_same_place_is_listed_again(image_tree, tmp_path):
    tree, out = shutil.copytree(image_tree, tmp_path / "tree"), tmp_path / "pack"
    pack_inline(tree, out)
    shutil.rmtree(out)
    (tree / "day" / "ant" / "0.jpg").unlink()
    assert pack_inline(tree, out).samples == 59
    assert "day/ant/0.jpg" not in open_pack(out).read_sources().to_pylist()
