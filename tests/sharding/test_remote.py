"""Packs in a real S3 server and on real web servers: pushed, staged, and every way that this fails.

Each failure is one line, exit status 2, without credentials; no part of a pack looks like a pack;
and the same command continues when the cause is gone.
"""

import re
import resource
import shutil
import sys
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from sharding.__main__ import main
from sharding.remote import download, storage
from sharding.remote.storage import Storage
from tests.common import ROOT, files_of
from tests.pack_servers import KEY, PASSWORD, SECRET, USER, Server, environment_of, run_sharding
from tests.sharding.sealing import alter_index, alter_manifest, downgrade, set_value

RANGE = 15_000  # bytes, so that a shard of the small pack is fetched in several
TOKEN = "token-in-a-query"
URL = "s3://bucket/pack"


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(download, "_RANGE", RANGE)
    monkeypatch.setattr(storage, "_WAITS", (0.01, 0.01))


@pytest.fixture
def buckets(tmp_path_factory):
    """The folder that a server serves: a folder in it is a bucket."""
    folder = tmp_path_factory.mktemp("buckets")
    (folder / "bucket").mkdir()
    return folder


@pytest.fixture
def bucket(buckets):
    return buckets / "bucket"


@pytest.fixture
def s3(buckets, monkeypatch):
    """A server, running, and the environment that gives access to it."""
    with Server("s3", buckets) as server:
        for name, value in environment_of(server).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def http(buckets, monkeypatch):
    """A web server with a password, running."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server("http", buckets) as server:
        yield server


@pytest.fixture
def stored(bucket, pack_path):
    """The folder in the bucket with the pack, as if it had been pushed."""
    return shutil.copytree(pack_path, bucket / "pack")


@pytest.fixture
def url(stored, s3):
    """The URL of ``stored``."""
    return URL


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a command that has to fail in the way of this file; returns its line."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        for secret in (KEY, SECRET, PASSWORD, USER + ":", TOKEN):
            assert secret not in captured.err + captured.out
        assert not [path for path in tmp_path.rglob("manifest.json") if "local" in str(path)]
        return line

    return run


def calls(monkeypatch, method, then=lambda count: None):
    """Counts the calls of a method of ``Storage`` by file; ``then`` gets the number of all before
    each."""
    counts = Counter()
    original = getattr(Storage, method)

    def counting(self, name, *arguments):
        then(counts.total())
        counts[name] += 1
        return original(self, name, *arguments)

    monkeypatch.setattr(Storage, method, counting)
    return counts


@pytest.mark.parametrize("version", [1, 2])
def test_a_pack_survives_the_way_to_a_bucket_and_back(
    version, s3, bucket, pack_path, tmp_path, capsys
):
    pack = shutil.copytree(pack_path, tmp_path / "pack")
    if version == 1:
        downgrade(pack)
    url, local = "s3://bucket/packs/animals", tmp_path / "local"
    for answer in ("uploaded", "is there already"):
        assert main(["push", str(pack), url]) == 0
        assert capsys.readouterr().out == f"{url}: {answer}\n"
    assert files_of(bucket / "packs" / "animals").keys() == files_of(pack).keys()
    assert main(["stage", url, str(local)]) == 0
    begun, ended = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{local}: copying [0-9.]+k?B from {url}", begun)
    assert ended == f"{local}: copied and checked"
    assert main(["stage", url, str(local)]) == 0
    assert capsys.readouterr().out == f"{local}: is there already\n"
    assert main(["verify", str(local)]) == 0
    ours, theirs = files_of(local), files_of(pack)
    if version == 1:  # its manifest is the same, indented
        assert len(ours.pop("manifest.json")) > len(theirs.pop("manifest.json"))
    assert ours == theirs


def test_packing_into_a_bucket_is_packing_and_pushing(
    image_tree, s3, bucket, pack_path, tmp_path, refused
):
    words = ["pack", "imagefolder", "--root", str(image_tree), "--shard-size", "40KB"]
    out, work = URL, str(tmp_path / "work")
    assert "add --work FOLDER" in refused(*words, "--out", out)
    assert "after the merge" in refused(*words, "--out", out, "--work", work, "--part", "1/2")
    assert "leave it out" in refused(*words, "--out", tmp_path / "pack", "--work", work)
    assert "cannot be pushed" in refused(*words, "--out", "https://server/pack", "--work", work)
    assert not any(bucket.iterdir())
    assert main([*words, "--out", out, "--work", work]) == 0
    assert files_of(bucket / "pack") == files_of(pack_path) == files_of(Path(work))


def test_a_server_that_dies_while_it_sends_is_continued(
    s3, url, pack_path, tmp_path, monkeypatch, refused
):
    def die(count):
        if count == 20:
            s3.kill()

    with monkeypatch.context() as patch:
        calls(patch, "read", die)
        assert "rerun the same command to resume" in refused("stage", url, tmp_path / "local")
    partial = tmp_path / ".local.staging"
    sizes = {path.name: path.stat().st_size for path in pack_path.glob("*.tar")}
    have = {name: (partial / name).stat().st_size for name in sizes if (partial / name).exists()}
    assert any(have.values())
    assert have != sizes
    s3.start()
    counts = calls(monkeypatch, "read")
    assert main(["stage", url, str(tmp_path / "local")]) == 0
    for name, size in sizes.items():
        assert counts[name] == -(-(size - have.get(name, 0)) // RANGE)
    assert files_of(tmp_path / "local") == files_of(pack_path)


def test_a_beginning_of_another_file_is_replaced(url, pack_path, tmp_path):
    partial = tmp_path / ".local.staging"
    partial.mkdir()
    for path in pack_path.iterdir():
        (partial / path.name).write_bytes(bytes(path.stat().st_size * 2 // 3))
    (partial / "shard-000000.tar").write_bytes(bytes(10**6))  # longer than the right one
    (partial / "shard-000099.tar").write_bytes(b"of a larger pack")
    assert main(["stage", url, str(tmp_path / "local")]) == 0
    assert files_of(tmp_path / "local") == files_of(pack_path)


def test_a_push_that_is_cut_short_leaves_no_manifest_and_is_continued(
    s3, bucket, pack_path, tmp_path, monkeypatch, refused
):
    def die(count):
        if count == 6:
            s3.kill()

    url = URL
    with monkeypatch.context() as patch:
        calls(patch, "upload", die)
        assert "rerun the same command to resume" in refused("push", pack_path, url)
    assert not (bucket / "pack" / "manifest.json").exists()
    s3.start()
    assert "is not a complete pack" in refused("stage", url, tmp_path / "local")
    complete = {
        path.name
        for path in (bucket / "pack").iterdir()
        if (pack_path / path.name).exists()
        and path.stat().st_size == (pack_path / path.name).stat().st_size
    }
    assert complete
    counts = calls(monkeypatch, "upload")
    assert main(["push", str(pack_path), url]) == 0
    assert counts.keys() == files_of(pack_path).keys() - complete - {"manifest.json"}
    assert main(["stage", url, str(tmp_path / "local")]) == 0


def test_a_push_replaces_what_a_complete_pack_has_lost(
    s3, stored, url, pack_path, tmp_path, capsys, refused
):
    (stored / "shard-000001.tar").unlink()
    (stored / "shard-000002.tar").write_bytes(b"short")
    assert "push an intact pack" in refused("stage", url, tmp_path / "local")
    assert main(["push", str(pack_path), url]) == 0
    assert "uploaded" in capsys.readouterr().out
    s3.restart()
    assert main(["stage", url, str(tmp_path / "local")]) == 0
    assert files_of(stored) == files_of(pack_path)


def test_what_a_push_of_another_pack_left_is_replaced(s3, bucket, pack_path, tmp_path):
    begun = bucket / "pack"
    begun.mkdir()
    (begun / ".pushing").write_text("0" * 64)
    for path in pack_path.iterdir():
        if path.name != "manifest.json":
            (begun / path.name).write_bytes(bytes(path.stat().st_size))
    assert main(["push", str(pack_path), URL]) == 0
    assert main(["stage", URL, str(tmp_path / "local")]) == 0


def test_a_pack_is_never_replaced_by_another(stored, url, pack_path, refused):
    alter_manifest(stored, lambda stated: stated.update(dataset="other"))
    before = files_of(stored)
    assert "has another pack" in refused("push", pack_path, url)
    assert files_of(stored) == before


def test_a_damaged_pack_is_not_pushed(s3, bucket, pack_path, tmp_path, refused):
    pack = shutil.copytree(pack_path, tmp_path / "pack")
    content = bytearray((pack / "shard-000001.tar").read_bytes())
    content[2000] ^= 1
    (pack / "shard-000001.tar").write_bytes(content)
    line = refused("push", pack, URL)
    assert "shard-000001.tar is damaged" in line
    assert not (bucket / "pack" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("shard-000001.tar", lambda right: right[:-1], "bytes instead of"),
        ("shard-000001.tar", lambda right: bytes(len(right)), "does not match its checksum"),
        ("shard-000001.tar", lambda right: None, "is missing"),
        ("shard-000001.idx", lambda right: bytes(10**6), "has 1000000 bytes, more than"),
        ("shard-000001.idx", lambda right: right.replace(b"8", b"9", 1), "is not the index of"),
        ("shard-000001.idx", lambda right: right[:-1], "is not the index of"),
        ("shard-000001.idx", lambda right: b"", "is not the index of"),
        ("index.parquet", lambda right: right[:-1], "does not match its checksum"),
        ("rejects.jsonl", lambda right: None, "is missing"),
    ],
)
def test_an_object_that_is_damaged_or_missing_is_named(
    name, content, words, stored, url, tmp_path, refused
):
    damaged = content((stored / name).read_bytes())
    (stored / name).unlink()
    if damaged is not None:
        (stored / name).write_bytes(damaged)
    line = refused("stage", url, tmp_path / "local")
    assert name in line
    assert words in line
    assert not (tmp_path / "local").exists()


def test_an_object_that_was_put_right_is_all_that_is_fetched_again(
    s3, stored, url, pack_path, tmp_path, monkeypatch, refused
):
    name = max(path.name for path in stored.glob("*.tar"))
    (stored / name).write_bytes(bytes((stored / name).stat().st_size))
    refused("stage", url, tmp_path / "local")
    shutil.copy(pack_path / name, stored)
    s3.restart()
    counts = calls(monkeypatch, "read")
    assert main(["stage", url, str(tmp_path / "local")]) == 0
    assert {path for path in counts if path.endswith(".tar")} == {name}
    assert files_of(tmp_path / "local") == files_of(pack_path)


def test_access_that_is_denied_is_one_line(url, pack_path, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    for words in (("stage", url, tmp_path / "local"), ("push", pack_path, f"{url}-2")):
        assert "is denied; check the credentials" in refused(*words)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "is denied; check the credentials" in refused("stage", url, tmp_path / "local")
    assert not list(tmp_path.rglob("*.tar"))


def test_a_pack_or_bucket_that_is_not_there_is_one_line(s3, pack_path, tmp_path, refused):
    for url in ("s3://bucket/nothing", "s3://no-such-bucket/pack"):
        assert "is not a complete pack" in refused("stage", url, tmp_path / "local")
    assert "is missing" in refused("push", pack_path, "s3://no-such-bucket/pack")


def test_too_little_space_is_found_before_anything_is_fetched(url, tmp_path, monkeypatch, refused):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("sharding.staging.shutil.disk_usage", lambda _: usage)
    counts = calls(monkeypatch, "read")
    assert "make room" in refused("stage", url, tmp_path / "local")
    assert counts.keys() == {"manifest.json"}


def test_a_disk_that_refuses_more_is_one_line(url, tmp_path, refused):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        line = refused("stage", url, tmp_path / "local")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large; fix this and rerun" in line
    assert main(["stage", url, str(tmp_path / "local")]) == 0


@pytest.mark.parametrize("name", ["../../outside.tar", "/tmp/outside.tar", "shard-000001.tar/x"])
def test_a_manifest_with_paths_outside_of_the_pack_is_refused(
    name, stored, url, tmp_path, monkeypatch, refused
):
    alter_manifest(stored, lambda stated: stated["shards"][1].update(name=name))
    counts = calls(monkeypatch, "read")
    assert "manifest.json is damaged" in refused("stage", url, tmp_path / "local")
    assert counts.keys() == {"manifest.json"}
    assert not any(tmp_path.iterdir())


def test_an_index_that_does_not_fit_its_manifest_stops_before_the_shards(
    stored, url, tmp_path, monkeypatch, refused
):
    alter_index(stored, lambda table: set_value(table, "label", 0, 99))
    counts = calls(monkeypatch, "read")
    assert "index.parquet is damaged" in refused("stage", url, tmp_path / "local")
    assert counts.keys() == {"manifest.json", "index.parquet"}  # there are no rejects


@pytest.mark.parametrize(
    ("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs"), ("hf", "huggingface_hub")]
)
def test_a_driver_that_is_not_installed_is_named(scheme, package, tmp_path, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused("stage", f"{scheme}://bucket/pack", tmp_path / "local")
    assert f"pip install {package}`" in line
    assert f"extra {scheme}" in line


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://server/pack", "cannot be read from ftp://"),
        ("s3://", "is not the URL of a folder"),
        ("s3://bucket/a b", "is not the URL of a folder"),
        (f"s3://{KEY}:{SECRET}@bucket/pack", "give credentials in the environment"),
        (f"s3://bucket/pack?token={TOKEN}", "give credentials in the environment"),
        (f"https://{USER}:{PASSWORD}@server/pack#{TOKEN}", "is not the URL of a folder"),
        (f"http://{USER}:{PASSWORD}@[::1/pack?{TOKEN}", "http://[::1"),
        (f"http://{USER}:{PASSWORD}/@:x/pack", "http://:x/pack"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(url, words, tmp_path, refused):
    assert words in refused("stage", url, tmp_path / "local")


def test_commands_that_need_a_folder_refuse_a_url(refused):
    for command in ("verify", "info", "merge"):
        assert "python -m sharding stage" in refused(command, "s3://bucket/pack")


def test_a_push_to_a_folder_is_refused(pack_path, tmp_path, refused):
    assert f"{tmp_path} is not a URL" in refused("push", pack_path, tmp_path)


def test_where_a_pack_cannot_be_written_is_said_before_the_data_set_is_listed(tmp_path, refused):
    for out, words in ((URL, "add --work FOLDER"), ("http://server/pack", "cannot be pushed")):
        assert words in refused("pack", "imagefolder", "--root", tmp_path / "gone", "--out", out)


def test_two_processes_that_stage_to_one_folder_make_one_copy(s3, url, pack_path, tmp_path):
    options = {"cwd": ROOT}
    both = [run_sharding("stage", url, tmp_path / "local", **options) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [error for _, error in outputs] == ["", ""]
    answers = sorted(output.splitlines()[-1].partition(": ")[2] for output, _ in outputs)
    assert answers == ["copied and checked", "is there already"]
    assert files_of(tmp_path / "local") == files_of(pack_path)


def test_a_web_server_with_a_password_serves_packs(http, stored, pack_path, tmp_path, refused):
    path = f"{http.address}/bucket/pack"
    line = refused("stage", f"http://{path}?{TOKEN}", tmp_path / "local")
    assert f"access to http://{path}/manifest.json is denied" in line
    assert "check the credentials in the URL or ~/.netrc" in line
    wrong = f"http://{USER}:{PASSWORD[:-1]}@{path}"
    assert "is denied" in refused("stage", wrong, tmp_path / "local")
    right = f"http://{USER}:{PASSWORD}@{path}"
    assert "is not a complete pack" in refused("stage", right + "-2", tmp_path / "local")
    assert main(["stage", f"{right}/?{TOKEN}", str(tmp_path / "local")]) == 0
    assert files_of(tmp_path / "local") == files_of(pack_path)


class Unreliable(SimpleHTTPRequestHandler):
    """Serves ranges, and refuses each file the first time that its content is asked for."""

    refused: ClassVar[Counter[str]] = Counter()
    ranges = True

    def do_GET(self):
        self.refused[self.path] += 1
        if self.refused[self.path] == 1:
            return self.send_error(503)
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        if wanted and self.ranges:
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        self.send_response(206 if wanted and self.ranges else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def unreliable(pack_path, monkeypatch):
    """The address of a server of ``pack_path``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Unreliable, "refused", Counter())

    def handle(*arguments):
        return Unreliable(*arguments, directory=pack_path.parent)

    with ThreadingHTTPServer(("127.0.0.1", 0), handle) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{pack_path.name}"
        server.shutdown()
        thread.join()


def test_what_a_server_refuses_for_a_moment_is_asked_for_again(unreliable, pack_path, tmp_path):
    assert main(["stage", unreliable, str(tmp_path / "local")]) == 0
    assert files_of(tmp_path / "local") == files_of(pack_path)


def test_a_server_without_ranges_is_refused_before_the_shards(
    unreliable, tmp_path, monkeypatch, refused
):
    monkeypatch.setattr(Unreliable, "ranges", False)
    assert "does not support HTTP ranges" in refused("stage", unreliable, tmp_path / "local")
    assert Unreliable.refused.total() == 2
