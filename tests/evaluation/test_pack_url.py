"""Evaluating a pack on a web server: it is copied first, and its password is never written."""

import shutil

import pytest

import evaluate
from tests.evaluation.scores import assert_equal_scores, scores
from tests.pack_servers import PASSWORD, USER, Server


@pytest.fixture
def url(pack_path, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("web")
    shutil.copytree(pack_path, root / "pack")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server("http", root) as server:
        yield f"http://{USER}:{PASSWORD}@{server.address}/pack"


def test_a_remote_pack_is_copied_and_gives_the_same_scores(url, arguments, tmp_path, refusal):
    assert "give --pack-cache FOLDER" in refusal(arguments(pack=url))
    packs = tmp_path / "packs"
    assert evaluate.main(arguments(pack=url, pack_cache=packs)) == 0
    assert evaluate.main(arguments("local")) == 0
    assert_equal_scores(scores(tmp_path / "out"), scores(tmp_path / "local"))
    assert [path.name.partition("-")[0] for path in packs.iterdir() if path.is_dir()] == ["pack"]
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()
