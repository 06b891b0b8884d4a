"""Logging to Weights & Biases, offline."""

import json
import sys

import pytest
import wandb

PROJECT = "--log.wandb=novelty"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    yield
    wandb.teardown()  # it reads the environment once


def test_an_offline_run_is_written_and_continued_under_the_same_id(train, tmp_path, capsys):
    run = tmp_path / "run"
    options = [PROJECT, "--log.samples=1"]
    assert train(*options, "--train.iterations=1") == 0
    own = json.loads((run / "wandb.json").read_text())["id"]
    assert f"logging to Weights & Biases: {run / 'wandb'} (offline)" in capsys.readouterr().out
    assert train(*options, "--train.iterations=2") == 0
    folders = sorted((run / "wandb").glob(f"offline-run-*-{own}"))
    assert len(folders) == len(list((run / "wandb").glob("offline-run-*"))) == 2
    for folder in folders:
        (log,) = folder.glob(f"run-{own}.wandb")
        content = log.read_bytes()
        for words in (b"novelty", b"gradient_norm", b"global_batch"):
            assert words in content
        assert list(folder.glob("files/media/images/pairs_*.png"))


def test_without_the_package_it_is_one_line_before_anything_is_written(
    train, tmp_path, monkeypatch, error_line
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(PROJECT) == 2
    assert "log.wandb needs the package wandb" in error_line()
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_without_an_account_it_is_one_line(train, monkeypatch, error_line):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")  # no account of this machine
    assert train(PROJECT) == 2
    assert "WANDB_MODE=offline" in error_line()


def test_a_damaged_id_is_one_line(train, tmp_path, error_line):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb.json").write_text("{")
    assert train(PROJECT) == 2
    assert "delete it to log to a new W&B run" in error_line()
