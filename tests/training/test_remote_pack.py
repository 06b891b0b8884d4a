"""Training on a pack in an object store, which is copied to the node first."""

import shutil

import pytest
from servers import Server, environment_of

from runtime.checkpoint import step_folders

URL = "s3://bucket/pack"


@pytest.fixture
def s3(pack_path, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("buckets")
    shutil.copytree(pack_path, root / "bucket" / "pack")
    server = Server("s3", root)
    for name, value in environment_of(server).items():
        monkeypatch.setenv(name, value)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_a_remote_pack_is_copied_and_trained_on(s3, train, tmp_path, error_line, capsys):
    pack, cache = f"--data.pack={URL}", f"--data.cache={tmp_path / 'cache'}"
    assert train(pack) == 2
    assert "give --data.cache FOLDER" in error_line()
    assert train(pack, cache, "--dry-run") == 2
    line = error_line()
    assert f"first run `python -m sharding stage {URL} {tmp_path / 'cache'}/pack-" in line
    assert not (tmp_path / "cache").exists()
    assert train(pack, cache, "--train.iterations=1") == 0
    (copy,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert str(copy) in (step_folders(tmp_path / "run")[0] / "config.yaml").read_text()
    assert train(pack, cache, "--dry-run") == 0


def test_a_process_that_cannot_copy_ends_the_others(s3, config_file, fail_on_rank_1, tmp_path):
    arguments = ["--config", config_file, f"--data.pack={URL}", "--out", tmp_path / "run"]
    arguments += [f"--data.cache={tmp_path / 'cache'}"]
    sabotage = "arguments.append('--data.cache=/proc/nothing')"
    (first, first_error), (second, second_error) = fail_on_rank_1(sabotage, "train_ddp", *arguments)
    assert (first, second) == (2, 2)
    assert first_error == "error: another process failed; see its message\n"
    assert second_error.startswith("rank 1: cannot copy s3://bucket/pack to /proc/nothing/pack-")
