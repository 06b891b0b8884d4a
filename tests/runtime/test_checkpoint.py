"""Checkpoints are whole or absent, and read without unpickling."""

import errno
import json
import os
import resource

import pytest
import torch

from runtime import checkpoint
from runtime.checkpoint import load_weights, newest, prune, save, step_folders
from runtime.errors import CheckpointError


def write(run, step, value=None, **metrics):
    weights = {"a": torch.full((2, 3), float(step if value is None else value))}
    training = {"optimizer": {"state": {0: {"buffer": torch.ones(3)}}, "param_groups": []}}
    return save(run, step, weights=weights, config={"seed": 1}, metrics=metrics, training=training)


def names(run):
    return [folder.name for folder in step_folders(run)]


def test_what_was_saved_is_read_back(tmp_path):
    folder = write(tmp_path, 7, loss=0.5)
    found = newest(tmp_path)
    assert found.step == 7
    assert found.config == {"seed": 1}
    assert torch.equal(found.weights["a"], torch.full((2, 3), 7.0))
    assert torch.equal(found.training["optimizer"]["state"][0]["buffer"], torch.ones(3))
    assert json.loads((folder / "metrics.json").read_text()) == {"step": 7, "loss": 0.5}


@pytest.mark.parametrize("place", ["run", "step", "file"])
def test_weights_load_from_a_run_a_step_or_a_file(tmp_path, place):
    write(tmp_path, 3)
    folder = write(tmp_path, 12)
    path = {"run": tmp_path, "step": folder, "file": folder / "weights.safetensors"}[place]
    weights, config = load_weights(path)
    assert weights["a"][0, 0] == 12
    assert config == {"seed": 1}


@pytest.mark.parametrize("file", ["weights.safetensors", "training.pt", "config.yaml"])
def test_a_truncated_checkpoint_is_skipped_with_a_line(tmp_path, file):
    write(tmp_path, 1)
    path = write(tmp_path, 2) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if file != "config.yaml" else 0])
    lines = []
    assert newest(tmp_path, lines.append).step == 1
    assert len(lines) == 1
    assert "step-00000002" in lines[0]
    assert "\n" not in lines[0]


def test_an_unfinished_checkpoint_is_not_seen(tmp_path):
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    folder.rename(folder.with_name(".step-00000002.partial"))
    assert names(tmp_path) == ["step-00000001"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, area in ((1, 0.7), (2, 0.9), (3, 0.8), (4, 0.6), (5, 0.5)):
        write(tmp_path, step, auroc=area)
    prune(tmp_path, keep=2, best="auroc")
    assert names(tmp_path) == ["step-00000005", "step-00000004", "step-00000002"]


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert newest(tmp_path).step == 1


def test_a_file_that_cannot_grow_leaves_the_last_checkpoint_whole(tmp_path):
    write(tmp_path, 1)
    large = {"a": torch.zeros(100_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write"):
            save(tmp_path, 2, weights=large, config={}, metrics={}, training=large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert newest(tmp_path).step == 1


def test_nothing_but_tensors_is_unpickled(tmp_path):
    folder = write(tmp_path, 1)
    torch.save({"optimizer": Planted()}, folder / "training.pt")
    lines = []
    assert newest(tmp_path, lines.append) is None
    assert not (tmp_path / "planted").exists()
    assert "training.pt" in lines[0]


class Planted:
    """Runs a command when unpickled."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


def test_a_missing_checkpoint_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.safetensors"):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            load_weights(path)
