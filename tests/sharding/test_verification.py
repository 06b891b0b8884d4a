"""`verify` names every alteration of a pack, and `verify --repair` undoes it, index included."""

import hashlib
import io
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sealing import alter_index, alter_manifest, downgrade, set_value

from sharding.__main__ import main
from sharding.format.opening import open_pack
from tests.common import files_of


def verify(pack, capsys, *options):
    """The exit status and the lines printed."""
    status = main(["verify", str(pack), "--workers", "1", *options])
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, captured.out.splitlines()


def change_value(column, row, change):
    return lambda table: set_value(table, column, row, change(table[column][row].as_py()))


def swap_domains(table):
    domains = 1 - table["domain"].to_numpy()
    return table.set_column(5, "domain", pa.array(domains, pa.int16()))


LIES = {
    "width": (change_value("width", 3, lambda width: width + 1), "the index says"),
    "height-halved": (change_value("height", 3, lambda height: height // 2), "the index says"),
    "label": (change_value("label", 3, lambda label: (label + 1) % 5), "label that does not match"),
    "crc32": (change_value("crc32", 3, lambda crc: crc ^ 1), "checksum does not match"),
    "key": (change_value("key", 3, lambda key: "000000999"), "tar header that does not match"),
    "size": (change_value("size", 3, lambda size: size - 1), None),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", LIES)
def test_an_index_that_fits_its_manifest_and_not_its_shards_is_named_and_rewritten(
    name, version, pack, pack_path, image_tree, capsys
):
    change, message = LIES[name]
    expected = files_of(pack_path)
    alter_index(pack, change)
    if version == 1:
        downgrade(pack)
        expected["manifest.json"] = (pack / "manifest.json").read_bytes()
    status, lines = verify(pack, capsys)
    assert status == 1
    if message:
        assert "sample " in lines[0]
        assert message in lines[0]
    assert lines[-1].endswith("1 faults in 1 files")
    status, lines = verify(pack, capsys, "--repair", "--root", str(image_tree))
    assert status == 0
    assert lines[-1].endswith("repaired, now intact")
    assert files_of(pack) == expected


@pytest.mark.parametrize(
    "change",
    [
        swap_domains,
        change_value("domain", 3, lambda domain: 99),
        change_value("offset", 3, lambda offset: 2**50),
        change_value("source", 3, lambda source: "day/bee/0.jpg"),
        lambda table: table.slice(1),
        lambda table: table.select(["key"]),
    ],
    ids=["domains-swapped", "domain", "offset", "source", "rows", "columns"],
)
def test_a_damaged_index_is_rewritten(change, pack, pack_path, image_tree, capsys):
    table = change(pq.read_table(pack / "index.parquet"))
    pq.write_table(table, pack / "index.parquet")
    status, lines = verify(pack, capsys)
    assert status == 1
    assert "index.parquet is damaged: it does not match its checksum" in lines
    assert verify(pack, capsys, "--repair", "--root", str(image_tree))[0] == 0
    assert files_of(pack) == files_of(pack_path)


@pytest.mark.parametrize("content", [b"", b"no index", None], ids=["empty", "garbage", "missing"])
def test_a_lost_index_is_made_again_with_damaged_shards(
    content, pack, pack_path, image_tree, capsys
):
    (pack / "index.parquet").unlink()
    if content is not None:
        (pack / "index.parquet").write_bytes(content)
    (pack / "shard-000001.tar").unlink()
    (pack / "shard-000000.idx").write_text("v1.2 0\n")
    (pack / "rejects.jsonl").write_text("{}\n")
    kept = (pack / "shard-000000.tar").stat().st_ino
    status, lines = verify(pack, capsys)
    assert status == 1
    for name in ("index.parquet", "shard-000001.tar", "rejects.jsonl"):
        assert sum(line.startswith(name) for line in lines) >= 1
    assert verify(pack, capsys, "--repair", "--root", str(image_tree))[0] == 0
    assert files_of(pack) == files_of(pack_path)
    assert (pack / "shard-000000.tar").stat().st_ino == kept


def alter_tar(pack, change):
    """Change a shard and state its new checksum, as someone would who knows of it."""
    path = pack / "shard-000001.tar"
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    alter_manifest(pack, lambda stated: stated["shards"][1].update(sha256=digest))


@pytest.mark.parametrize(
    ("distance", "message"),
    [(-512, "tar header"), (-512 + 101, "tar header"), (-512 + 156, "tar header"), (40, "damaged")],
    ids=["name", "mode", "type", "image"],
)
def test_a_shard_that_differs_from_the_index_is_named_though_its_checksum_is_right(
    distance, message, pack, capsys
):
    index = open_pack(pack).index
    offset = int(index.offset[(index.shard == 1).argmax()])

    def change(content):
        content[offset + distance] ^= 1

    alter_tar(pack, change)
    status, lines = verify(pack, capsys)
    assert status == 1
    assert message in lines[0]


def test_a_shard_that_the_tree_no_longer_gives_is_not_called_repaired(
    pack, image_tree, tmp_path, error_line
):
    tree = shutil.copytree(image_tree, tmp_path / "tree")
    for path in tree.rglob("*.jpg"):  # of the same size, as the listing has them
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    (pack / "shard-000000.tar").unlink()
    assert main(["verify", str(pack), "--repair", "--root", str(tree)]) == 2
    assert "differs from the original" in error_line()
    assert not (pack / "shard-000000.tar").exists()


def test_files_of_no_shard_are_named_and_left_alone(pack, image_tree, capsys):
    (pack / "shard-000099.tar").write_bytes(b"of a colleague")
    (pack / "README").write_text("ours")
    status, lines = verify(pack, capsys)
    assert (status, len(lines)) == (1, 2)
    assert "shard-000099.tar" in lines[0]
    assert "remove it" in lines[0]
    status, lines = verify(pack, capsys, "--repair", "--root", str(image_tree))
    assert status == 1
    assert not any("repaired" in line for line in lines)
    assert (pack / "shard-000099.tar").read_bytes() == b"of a colleague"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "name", ["shard-000001.idx", "shard-000001.tar", "rejects.jsonl", "index.parquet"]
)
def test_a_file_that_grew_to_gigabytes_is_named_without_being_read(name, version, pack, capsys):
    with (pack / name).open("ab") as file:
        file.truncate(2**40)
    if version == 1:
        downgrade(pack)
    status, lines = verify(pack, capsys)
    assert status == 1
    assert any(name in line for line in lines)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["shard-000001.idx", "shard-000001.tar", "rejects.jsonl"])
def test_a_pipe_in_place_of_a_file_is_named_and_replaced(name, pack, pack_path, image_tree, capsys):
    (pack / name).unlink()
    os.mkfifo(pack / name)
    status, lines = verify(pack, capsys)
    assert status == 1
    assert any(name in line for line in lines)
    assert verify(pack, capsys, "--repair", "--root", str(image_tree))[0] == 0
    assert files_of(pack) == files_of(pack_path)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("content", [b"{}\n", b'{"source": "a", "reason": "b"}\n', b"[[[", None])
def test_rejects_that_are_not_the_packs_are_named(content, version, pack, capsys):
    (pack / "rejects.jsonl").unlink()
    if content is not None:
        (pack / "rejects.jsonl").write_bytes(content)
    if version == 1:
        downgrade(pack)
    status, lines = verify(pack, capsys)
    assert status == 1
    assert lines[0].startswith("rejects.jsonl ")


def test_rejects_and_odd_names_survive_a_repair_of_the_index(image_tree, tmp_path, capsys):
    tree, pack = shutil.copytree(image_tree, tmp_path / "tree"), tmp_path / "pack"
    (tree / "day" / "ant" / "bad.jpg").write_bytes(b"no image")
    shutil.copy(tree / "day" / "ant" / "0.jpg", tree / "day" / "ant" / "\x1b[31m\n.jpg")
    arguments = ["--root", str(tree), "--out", str(pack), "--workers", "1"]
    assert main(["pack", "imagefolder", *arguments]) == 0
    before = files_of(pack)
    row = open_pack(pack).read_sources().to_pylist().index("day/ant/\x1b[31m\n.jpg")
    alter_index(pack, change_value("width", row, lambda width: width + 1))
    capsys.readouterr()
    status, lines = verify(pack, capsys)
    assert status == 1
    assert "('day/ant/\\x1b[31m\\n.jpg')" in lines[0]
    assert verify(pack, capsys, "--repair", "--root", str(tree))[0] == 0
    assert files_of(pack) == before
    assert len(before["rejects.jsonl"].splitlines()) == 1


def test_an_image_whose_pixels_are_damaged_is_found_by_decoding(tmp_path, capsys):
    folder = tmp_path / "tree" / "class"
    folder.mkdir(parents=True)
    encoded = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(encoded, "PNG")
    content = bytearray(encoded.getvalue())
    content[200:300] = bytes(100)  # of the compressed pixels
    (folder / "damaged.png").write_bytes(content)
    arguments = ["--root", str(folder.parent), "--out", str(tmp_path / "pack"), "--workers", "1"]
    assert main(["pack", "imagefolder", *arguments, "--no-decode-check"]) == 0
    capsys.readouterr()
    assert verify(tmp_path / "pack", capsys)[0] == 0
    status, lines = verify(tmp_path / "pack", capsys, "--decode")
    assert status == 1
    assert "does not decode" in lines[0]


def test_a_manifest_whose_options_cannot_be_repacked_is_one_line(pack, image_tree, error_line):
    (pack / "shard-000000.tar").unlink()
    downgrade(pack)
    stated = json.loads((pack / "manifest.json").read_text())
    for options in ({}, {**stated["options"], "shard_size": "40KB"}, {"image": 5}):
        (pack / "manifest.json").write_text(json.dumps({**stated, "options": options}))
        assert main(["verify", str(pack), "--repair", "--root", str(image_tree)]) == 2
        assert "is damaged" in error_line()


def test_a_pack_without_its_manifest_is_refused_by_every_command(pack, tmp_path, capsys):
    (pack / "manifest.json").unlink()
    for arguments in (["info"], ["verify"], ["stage"]):
        extra = [str(tmp_path / "local")] if arguments == ["stage"] else []
        assert main([*arguments, str(pack), *extra]) == 2
        assert "is not a complete pack" in capsys.readouterr().err
