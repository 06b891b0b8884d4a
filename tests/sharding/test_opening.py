"""Whatever a pack says, it is opened as it was packed, or refused in one line."""

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sealing import alter_index, alter_manifest, downgrade, seal_index, set_value

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format import index
from sharding.format.index import SCHEMA, key_name
from sharding.format.manifest import Manifest
from sharding.format.opening import open_pack


def refuse(pack, tmp_path, capsys, message):
    """Every command that opens ``pack`` ends with exit code 2 and one line that has ``message``."""
    for arguments in (["info", pack], ["stage", pack, tmp_path / "local"]):
        assert main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert len(line) < 1000
    assert not (tmp_path / "local").exists()


def found_by_verify(pack, capsys, message):
    status = main(["verify", str(pack), "--workers", "1"])
    captured = capsys.readouterr()
    assert status in (1, 2)
    assert message in captured.out + captured.err
    assert captured.err.count("\n") == (status == 2)


def test_an_opened_pack_is_what_was_packed(pack_path):
    contents = open_pack(pack_path)
    assert contents.manifest == Manifest.load(pack_path)
    assert contents.manifest.index.rows == len(contents.index) == 60
    table = pq.read_table(pack_path / "index.parquet")
    for name, column in vars(contents.index).items():
        expected = table.column(name).to_pylist()
        assert (list(map(key_name, column.tolist())) if name == "key" else column.tolist()) == (
            expected
        )
    assert contents.read_sources().to_pylist() == table.column("source").to_pylist()


def test_no_other_thread_reads_the_index(pack_path, monkeypatch):
    """At the interpreter's end it could abort the process."""
    threads = set()

    class Recorded(io.FileIO):
        def read(self, *size):
            threads.add(threading.get_ident())
            return super().read(*size)

        def readinto(self, buffer):
            threads.add(threading.get_ident())
            return super().readinto(buffer)

    monkeypatch.setattr(index, "open_regular", Recorded)
    open_pack(pack_path).read_sources()
    assert threads == {threading.get_ident()}


def test_a_pack_of_schema_version_1_opens_with_the_fingerprint_that_it_had(pack):
    downgrade(pack)
    stated = json.loads((pack / "manifest.json").read_text())
    canonical = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    manifest = open_pack(pack).manifest
    assert (manifest.schema_version, manifest.index) == (1, None)
    assert manifest.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    assert main(["verify", str(pack)]) == 0


MANIFESTS = {
    "unknown-version": (lambda m: m.update(schema_version=3), "schema_version is 3"),
    "version-bool": (lambda m: m.update(schema_version=True), "schema_version is True"),
    "missing-key": (lambda m: m.pop("domains"), "lacks domains"),
    "unknown-key": (lambda m: m.update(more=1), "unknown key 'more'"),
    "dataset-number": (lambda m: m.update(dataset=5), "name 0 of dataset"),
    "classes-string": (lambda m: m.update(classes="ant"), "classes is not a list"),
    "classes-empty": (lambda m: m.update(classes=[]), "classes is not a list"),
    "class-number": (lambda m: m["classes"].__setitem__(1, 7), "name 1 of classes"),
    "class-null": (lambda m: m["classes"].__setitem__(1, None), "name 1 of classes"),
    "class-list": (lambda m: m["classes"].__setitem__(1, ["bee"]), "name 1 of classes"),
    "class-empty": (lambda m: m["classes"].__setitem__(1, ""), "name 1 of classes"),
    "class-long": (lambda m: m["classes"].__setitem__(1, "x" * 10**6), "name 1 of classes"),
    "class-twice": (lambda m: m["classes"].__setitem__(1, "ant"), "classes has a name twice"),
    "class-escape": (lambda m: m["classes"].__setitem__(1, "\x1b[2J"), "control characters"),
    "class-surrogate": (lambda m: m["classes"].__setitem__(1, "\udc80"), "control characters"),
    "domain-twice": (lambda m: m.update(domains=["day", "day"]), "domains has a name twice"),
    "splits-object": (lambda m: m.update(splits={"all": 1}), "splits is not a list"),
    "samples-float": (lambda m: m.update(samples=60.0), "samples is not an integer"),
    "samples-bool": (lambda m: m.update(rejects=False), "rejects is not an integer"),
    "samples-negative": (lambda m: m.update(samples=-60), "samples is not an integer"),
    "samples-huge": (lambda m: m.update(samples=10**17), "samples is not an integer"),
    "samples-digits": (lambda m: m.update(samples=10**4000), "too many digits"),
    "samples-other": (lambda m: m.update(samples=61), "samples is 61, its shards have 60"),
    "bytes-other": (lambda m: m.update(bytes=1), "bytes is 1, its shards have"),
    "options-list": (lambda m: m.update(options=[1]), "options is not an object"),
    "options-deep": (lambda m: m["options"].update(a={"b": {}}), "nested too deeply"),
    "shards-empty": (lambda m: m.update(shards=[]), "shards is not a list"),
    "shard-string": (lambda m: m["shards"].__setitem__(0, "a.tar"), "shard 0 is not an object"),
    "shard-key": (lambda m: m["shards"][0].update(more=1), "shard 0 has an unknown key"),
    "shard-missing": (lambda m: m["shards"].pop(), "samples is 60, its shards have"),
    "shard-swapped": (lambda m: m["shards"].reverse(), "name of shard 0"),
    "shard-parent": (lambda m: m["shards"][0].update(name="../a.tar"), "name of shard 0"),
    "shard-absolute": (lambda m: m["shards"][0].update(name="/etc/passwd"), "name of shard 0"),
    "shard-sha256": (lambda m: m["shards"][0].update(sha256="0" * 63), "64 hexadecimal digits"),
    "shard-full": (lambda m: m["shards"][0].update(samples=10**6), "too small for 1000000"),
    "index-null": (lambda m: m.update(index=None), "index is not an object"),
    "index-rows": (lambda m: m["index"].update(rows=61), "index has 61 rows for 60"),
    "index-sha256": (lambda m: m["index"].update(sha256=5), "64 hexadecimal digits"),
    "fingerprint": (lambda m: m.update(fingerprint="0" * 64), "fingerprint does not match"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_not_one_is_refused(name, pack, tmp_path, capsys):
    change, message = MANIFESTS[name]
    alter_manifest(pack, change)
    refuse(pack, tmp_path, capsys, message)
    found_by_verify(pack, capsys, message)


def test_a_name_that_is_changed_is_noticed(pack, tmp_path, capsys):
    path = pack / "manifest.json"
    path.write_text(path.read_text().replace('"bee"', '"bef"'))
    refuse(pack, tmp_path, capsys, "fingerprint does not match")
    found_by_verify(pack, capsys, "fingerprint does not match")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "not a JSON object"),
        (b'{"samples": NaN}', "NaN is not a number"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "too many digits"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_plain_json_is_refused(content, message, pack, tmp_path, capsys):
    (pack / "manifest.json").write_bytes(content)
    refuse(pack, tmp_path, capsys, message)
    found_by_verify(pack, capsys, message)


def test_a_huge_manifest_is_refused_unread(pack, tmp_path, capsys):
    with (pack / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    refuse(pack, tmp_path, capsys, "larger than")


INDEXES = {
    "offset-beyond": (lambda t: set_value(t, "offset", 3, 2**40), "row 3 .* does not begin where"),
    "offset-negative": (lambda t: set_value(t, "offset", 3, -512), "row 3 .* does not begin where"),
    "offset-shifted": (
        lambda t: set_value(t, "offset", 3, t["offset"][3].as_py() + 1), "row 3 .* does not begin"),
    "offset-other": (
        lambda t: set_value(t, "offset", 3, t["offset"][2].as_py()), "row 3 .* does not begin"),
    "size-zero": (lambda t: set_value(t, "size", 3, 0), "row 3 .* has an impossible size"),
    "size-negative": (lambda t: set_value(t, "size", 3, -1), "row 3 .* has an impossible size"),
    "size-huge": (lambda t: set_value(t, "size", 3, 2**62), "row 3 .* has an impossible size"),
    "size-larger": (lambda t: set_value(t, "size", 59, 10**6), "shard of a different size"),
    "shard-other": (lambda t: set_value(t, "shard", 0, 1), "row 0 .* is not in the shard"),
    "shard-beyond": (lambda t: set_value(t, "shard", 59, 99), "row 59 .* is not in the shard"),
    "shard-negative": (lambda t: set_value(t, "shard", 0, -1), "row 0 .* is not in the shard"),
    "label-beyond": (lambda t: set_value(t, "label", 3, 5), "row 3 .* a label that has no name"),
    "label-negative": (lambda t: set_value(t, "label", 3, -1), "row 3 .* a label that has no"),
    "domain-beyond": (lambda t: set_value(t, "domain", 3, 2), "row 3 .* a domain that has no"),
    "split-negative": (lambda t: set_value(t, "split", 3, -1), "row 3 .* a split that has no name"),
    "width-zero": (lambda t: set_value(t, "width", 3, 0), "row 3 .* has no pixels"),
    "height-negative": (lambda t: set_value(t, "height", 3, -9), "row 3 .* has no pixels"),
    "pixels": (lambda t: set_value(t, "width", 3, 2**31 - 1), "row 3 .* has more than"),
    "key-twice": (lambda t: set_value(t, "key", 3, t["key"][2].as_py()), "occurs twice"),
    "key-text": (lambda t: set_value(t, "key", 3, "../../etc"), "a key that is not a number"),
    "key-short": (lambda t: set_value(t, "key", 3, "3"), "a key that is not a number"),
    "key-zeros": (lambda t: set_value(t, "key", 3, "0000000003"), "a key that is not a number"),
    "key-long": (lambda t: set_value(t, "key", 3, "9" * 2000), "a key of 2000 bytes"),
    "key-null": (lambda t: set_value(t, "key", 3, None), "nulls"),
    "source-null": (lambda t: set_value(t, "source", 3, None), "nulls"),
    "label-null": (lambda t: set_value(t, "label", 3, None), "nulls"),
    "a-row-less": (lambda t: t.slice(1), "59 rows, the manifest 60"),
    "no-rows": (lambda t: t.slice(0, 0), "0 rows, the manifest 60"),
    "float-offsets": (
        lambda t: t.set_column(2, "offset", t["offset"].cast(pa.float64())), "the columns of"),
    "wide-labels": (
        lambda t: t.set_column(4, "label", t["label"].cast(pa.int64())), "the columns of"),
    "a-column-less": (lambda t: t.drop_columns(["crc32"]), "the columns of"),
    "other-order": (lambda t: t.select(t.column_names[::-1]), "the columns of"),
    "reversed": (lambda t: t.take(list(range(59, -1, -1))), "is not in the shard"),
}  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_does_not_fit_its_manifest_is_refused(name, version, pack, tmp_path, capsys):
    change, message = INDEXES[name]
    alter_index(pack, change)
    if version == 1:
        downgrade(pack)
    with pytest.raises(PackError, match=message):
        open_pack(pack)
    refuse(pack, tmp_path, capsys, "index.parquet is damaged: ")
    found_by_verify(pack, capsys, "index.parquet is damaged: ")


def test_any_change_of_the_index_is_noticed_by_its_checksum(pack, tmp_path, capsys):
    table = pq.read_table(pack / "index.parquet")
    pq.write_table(set_value(table, "domain", 3, 1), pack / "index.parquet")
    refuse(pack, tmp_path, capsys, "does not match its checksum")
    found_by_verify(pack, capsys, "does not match its checksum")


@pytest.mark.parametrize("version", [1, 2])
def test_bytes_that_are_not_parquet_are_refused(version, pack):
    content = (pack / "index.parquet").read_bytes()
    if version == 1:
        downgrade(pack)
    for bad in (b"", b"PAR1", content[:-9], bytes(len(content)), content + bytes(2**22)):
        (pack / "index.parquet").write_bytes(bad)
        with pytest.raises(PackError, match=r"index\.parquet is damaged: "):
            open_pack(pack)


def test_random_damage_of_an_index_without_a_checksum_never_gets_past_the_error(pack):
    content = (pack / "index.parquet").read_bytes()
    downgrade(pack)
    rng = np.random.default_rng(0)
    for _ in range(100):
        flipped = bytearray(content)
        for position in rng.integers(0, len(content), 8):
            flipped[position] ^= 1 << int(rng.integers(8))
        (pack / "index.parquet").write_bytes(flipped)
        with contextlib.suppress(PackError):  # pixels and labels may change within their range
            open_pack(pack)


def test_an_index_of_many_rows_is_refused_by_its_row_count(pack):
    """Eight million rows in few bytes; read, they would take half a gigabyte."""
    rows = 10**6
    values = {field.name: "000000000" if pa.types.is_string(field.type) else 0 for field in SCHEMA}
    columns = {name: pa.repeat(value, rows) for name, value in values.items()}
    chunk = pa.table(columns).cast(SCHEMA)
    with pq.ParquetWriter(pack / "index.parquet", SCHEMA, compression="zstd") as writer:
        for _ in range(8):
            writer.write_table(chunk, row_group_size=rows)
    seal_index(pack)
    assert (pack / "index.parquet").stat().st_size < 10**6
    measure = (
        "import re, sys; from sharding.__main__ import main; status = main(sys.argv[1:]);"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1];"
        "print(status, int(peak) // 1024)"
    )
    command = [sys.executable, "-c", measure, "info", str(pack)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    status, megabytes = map(int, run.stdout.split())
    assert status == 2
    assert "8000000 rows, the manifest 60" in run.stderr
    assert megabytes < 400


def replace_file(path, kind, elsewhere):
    content = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(path.parent)  # the address of a socket is short
            bound.bind(path.name)
    elif kind == "device-link":
        path.symlink_to("/dev/zero")
    else:
        elsewhere.write_bytes(content)
        path.symlink_to(elsewhere)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device-link", "link"])
@pytest.mark.parametrize("name", ["manifest.json", "index.parquet", "shard-000001.tar"])
def test_what_is_not_a_regular_file_is_refused_at_once(
    name, kind, pack, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    replace_file(pack / name, kind, tmp_path / "elsewhere")
    refuse(pack, tmp_path, capsys, name)
    found_by_verify(pack, capsys, name)


@pytest.mark.parametrize("name", ["index.parquet", "shard-000001.tar"])
def test_a_missing_file_is_named(name, pack, tmp_path, capsys):
    (pack / name).unlink()
    refuse(pack, tmp_path, capsys, name)
    found_by_verify(pack, capsys, name)


def test_a_shard_of_another_size_is_named(pack, tmp_path, capsys):
    with (pack / "shard-000001.tar").open("ab") as file:
        file.write(bytes(10240))
    refuse(pack, tmp_path, capsys, "shard-000001.tar has")
    found_by_verify(pack, capsys, "shard-000001.tar has")
