"""Training on a pack in an object store, which is copied to the node first."""

import shutil

import pytest

from runtime.checkpoint import step_folders
from tests.pack_servers import PASSWORD, USER, Server, environment_of

URL = "s3://bucket/pack"


@pytest.fixture
def buckets(pack_path, tmp_path_factory):
    root = tmp_path_factory.mktemp("buckets")
    shutil.copytree(pack_path, root / "bucket" / "pack")
    return root


@pytest.fixture
def s3(buckets, monkeypatch):
    with Server("s3", buckets) as server:
        for name, value in environment_of(server).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def http(buckets):
    with Server("http", buckets) as server:
        yield server


def test_a_remote_pack_is_copied_and_trained_on(
    s3, train, insects_path, tmp_path, error_line, capsys
):
    pack, cache = f"--data.pack={URL}", f"--data.cache={tmp_path / 'cache'}"
    assert train(pack) == 2
    assert "give --data.cache FOLDER" in error_line()
    assert train(pack, cache, "--dry-run") == 2
    line = error_line()
    assert f"first run `python -m sharding stage {URL} {tmp_path / 'cache'}/pack-" in line
    assert not (tmp_path / "cache").exists()
    assert train(pack, cache, "--train.iterations=1") == 0
    begun, ended = capsys.readouterr().out.splitlines()[:2]
    assert begun.endswith(f"B from {URL}")
    assert ended.endswith(": copied and checked")
    (copy,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert str(copy) in (step_folders(tmp_path / "run")[0] / "config.yaml").read_text()
    assert train(pack, cache, "--dry-run") == 0
    packs = f"--data.packs=[{{pack: {URL}}}, {{pack: {insects_path}}}]"
    assert train("--data.pack=null", packs, cache, "--dry-run", run="two") == 0
    assert "84 images of 8 classes" in capsys.readouterr().out


def test_a_process_that_cannot_copy_ends_the_others(http, config_file, fail_on_rank_1, tmp_path):
    url = f"http://{USER}:{PASSWORD}@{http.address}/bucket/pack"
    arguments = ["--config", config_file, f"--data.pack={url}", "--out", tmp_path / "run"]
    arguments += [f"--data.cache={tmp_path / 'cache'}"]
    sabotage = "arguments.append('--data.cache=/proc/nothing')"
    (first, first_error), (second, second_error) = fail_on_rank_1(sabotage, "train_ddp", *arguments)
    assert (first, second) == (2, 2)
    assert first_error == "error: another process failed; see its message\n"
    assert second_error.startswith(
        f"rank 1: cannot copy http://{http.address}/bucket/pack to /proc"
    )
