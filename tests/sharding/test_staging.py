"""Only a pack that can be opened is copied, and its manifest comes last."""

import os
import shutil

import pytest
from sealing import downgrade

from sharding import staging
from sharding.__main__ import main
from tests.common import files_of, flip


def stage(pack, local):
    return main(["stage", str(pack), str(local)])


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_pack_without_a_usable_index_is_not_copied(content, pack, tmp_path, error_line):
    (pack / "index.parquet").unlink()
    if content is not None:
        (pack / "index.parquet").write_bytes(content)
    assert stage(pack, tmp_path / "local") == 2
    assert "index.parquet is damaged" in error_line()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack"]


def test_the_manifest_is_copied_last(pack, tmp_path, monkeypatch):
    copied = []

    def copy(source, target, bar):
        assert not (target.parent / "manifest.json").exists()
        copied.append(source.name)
        return original(source, target, bar)

    original = staging._copy
    monkeypatch.setattr(staging, "_copy", copy)
    assert stage(pack, tmp_path / "local") == 0
    assert sorted([*copied, "manifest.json"]) == sorted(files_of(pack))


@pytest.mark.parametrize("version", [1, 2])
def test_a_copy_that_was_begun_of_another_pack_is_replaced(version, pack, tmp_path, capsys):
    begun = shutil.copytree(pack, tmp_path / ".local.staging")
    for path in begun.iterdir():  # of the same size
        path.write_bytes(bytes(path.stat().st_size))
    (begun / "shard-000099.tar").write_bytes(b"more")
    if version == 1:
        downgrade(pack)
    (pack / "notes.txt").write_text("not a file of the pack")
    assert stage(pack, tmp_path / "local") == 0
    (pack / "notes.txt").unlink()
    ours, theirs = files_of(tmp_path / "local"), files_of(pack)
    if version == 1:  # its manifest is the same, indented
        assert len(ours.pop("manifest.json")) > len(theirs.pop("manifest.json"))
    assert ours == theirs
    assert stage(pack, tmp_path / "local") == 0
    assert "is there already" in capsys.readouterr().out


def test_a_copy_that_was_damaged_later_is_not_taken_for_one(pack, tmp_path, error_line):
    assert stage(pack, tmp_path / "local") == 0
    (tmp_path / "local" / "shard-000001.tar").unlink()
    assert stage(pack, tmp_path / "local") == 2
    assert "shard-000001.tar is missing" in error_line()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["missing", "fifo", "huge"])
@pytest.mark.parametrize("name", ["shard-000001.idx", "rejects.jsonl", "index.parquet"])
def test_a_pack_with_an_unusable_file_is_not_copied(name, kind, pack, tmp_path, error_line):
    if kind == "huge":
        with (pack / name).open("ab") as file:
            file.truncate(9 * 2**30)
    else:
        (pack / name).unlink()
        if kind == "fifo":
            os.mkfifo(pack / name)
    assert stage(pack, tmp_path / "local") == 2
    assert name in error_line()
    assert not (tmp_path / "local").exists()


def test_a_pack_with_the_wrong_dali_index_is_not_copied(pack, tmp_path, error_line):
    shutil.copy(pack / "shard-000000.idx", pack / "shard-000001.idx")
    assert stage(pack, tmp_path / "local") == 2
    assert "shard-000001.idx is not the index of shard-000001.tar; run `python -m" in error_line()
    assert not (tmp_path / "local").exists()


def test_staging_copies_checks_and_recognizes_its_copy(pack_path, tmp_path, capsys):
    local = tmp_path / "node" / "pack"
    assert main(["stage", str(pack_path), str(local)]) == 0
    assert files_of(local) == files_of(pack_path)
    assert main(["stage", str(pack_path), str(local)]) == 0
    assert "is there already" in capsys.readouterr().out


def test_staging_goes_on_where_it_was_cut_short(pack, pack_path, tmp_path, capsys):
    local = tmp_path / "local"
    flip(pack / "shard-000001.tar", 2000)
    assert main(["stage", str(pack), str(local)]) == 2
    assert "shard-000001.tar is damaged" in capsys.readouterr().err
    assert not local.exists()
    first = (tmp_path / ".local.staging" / "shard-000000.tar").stat().st_ino
    shutil.copy(pack_path / "shard-000001.tar", pack)
    assert main(["stage", str(pack), str(local)]) == 0
    assert (local / "shard-000000.tar").stat().st_ino == first
    assert files_of(local) == files_of(pack_path)


def test_staging_refuses_a_disk_that_is_too_small(pack_path, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("sharding.staging.shutil.disk_usage", lambda _: usage)
    assert main(["stage", str(pack_path), str(tmp_path / "local")]) == 2
    assert "make room" in capsys.readouterr().err
    assert not (tmp_path / "local").exists()
