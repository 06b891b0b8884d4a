"""Checkpoints are complete or absent, verified when read, and read without unpickling."""

import errno
import json
import os
import random
import resource

import pytest
import torch

from runtime import checkpoint
from runtime.checkpoint import (
    TrainingState,
    add_metrics,
    load_weights,
    newest,
    prune,
    save,
    step_folders,
)
from runtime.errors import CheckpointError


def write(run, step, value=None, averaged=None, **metrics):
    weights = {"a": torch.full((2, 3), float(step if value is None else value))}
    values = {"optimizer": {"state": {0: {"buffer": torch.ones(3)}}, "param_groups": []}}
    training = TrainingState(values, averaged)
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
    found = load_weights(path)
    assert found.weights["a"][0, 0] == 12
    assert found.config == {"seed": 1}
    assert found.step == 12
    assert found.verified


@pytest.mark.parametrize("place", ["run", "step", "file"])
def test_averaged_weights_are_preferred_where_there_are_any(tmp_path, place):
    folder = write(tmp_path, 3, averaged={"a": torch.zeros(2, 3)})
    path = {"run": tmp_path, "step": folder, "file": folder / "averaged.safetensors"}[place]
    found = load_weights(path)
    assert (found.weights["a"][0, 0], found.is_averaged, found.verified) == (0, True, True)
    trained = load_weights(folder / "weights.safetensors")
    assert (trained.weights["a"][0, 0], trained.is_averaged) == (3, False)
    both = newest(tmp_path)
    assert (both.weights["a"][0, 0], both.averaged["a"][0, 0]) == (3, 0)


@pytest.mark.parametrize("reader", [newest, load_weights])
def test_averaged_weights_that_are_lost_or_added_are_refused(tmp_path, reader):
    folder = write(tmp_path, 3, averaged={"a": torch.zeros(2, 3)})
    (folder / "averaged.safetensors").rename(tmp_path / "taken")
    with pytest.raises(CheckpointError, match=r"averaged.safetensors.*No such file"):
        reader(tmp_path)
    other = tmp_path / "other"
    (tmp_path / "taken").rename(write(other, 3) / "averaged.safetensors")
    with pytest.raises(CheckpointError, match=r"does not list averaged\.safetensors"):
        reader(other)


def drop_checksums(folder):
    """Make it a checkpoint of an older version."""
    (folder / "checksums.json").unlink()


@pytest.mark.parametrize("file", ["weights.safetensors", "training.pt", "config.yaml"])
def test_a_truncated_checkpoint_is_an_error_that_names_the_older_one(tmp_path, file):
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    drop_checksums(folder)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2 if file != "config.yaml" else 0])
    with pytest.raises(CheckpointError, match=file) as caught:
        newest(tmp_path)
    assert f"delete {folder} to continue from step-00000001" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["weights.safetensors", "training.pt", "config.yaml"])
def test_every_flipped_bit_is_found(tmp_path, file):
    path = write(tmp_path, 1) / file
    content = path.read_bytes()
    rng = random.Random(0)
    for place in rng.choices(range(len(content)), k=40):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            newest(tmp_path)
    path.write_bytes(content)
    assert newest(tmp_path).step == 1


def test_a_checkpoint_without_checksums_is_read_and_says_so(tmp_path):
    drop_checksums(write(tmp_path, 1))
    assert not newest(tmp_path).verified
    assert not load_weights(tmp_path).verified


def test_damaged_newest_weights_are_not_passed_over(tmp_path):
    older = write(tmp_path, 1)
    folder = write(tmp_path, 2)
    (folder / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors") as caught:
        load_weights(tmp_path)
    assert str(older) in str(caught.value)
    assert load_weights(older).step == 1


@pytest.mark.parametrize("kind", ["empty folder", "file", "fifo", "link to /dev/zero"])
def test_what_lies_in_place_of_a_checkpoint_or_its_file_is_one_line(tmp_path, kind):
    write(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000002"
    if kind == "empty folder":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("x")
    else:
        write(tmp_path, 2)
        drop_checksums(folder)
        (folder / "weights.safetensors").unlink()
        if kind == "fifo":
            os.mkfifo(folder / "weights.safetensors")
        else:
            (folder / "weights.safetensors").symlink_to("/dev/zero")
    for read in (newest, load_weights):
        with pytest.raises(CheckpointError, match="step-00000002") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a\n",
        "a: " + "[" * 1500 + "]" * 1500,
        "1: 2\n",
        "a: 2020-01-01\n",
        "[1, 2]\n",
        "a: !!python/object:os.system {}\n",
        "a: \xff",
        "a: " + "x" * 600_000,
    ],
)
def test_a_configuration_of_odd_content_is_one_line(tmp_path, text):
    folder = write(tmp_path, 1)
    drop_checksums(folder)
    (folder / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config.yaml") as caught:
        load_weights(tmp_path)
    assert "\n" not in str(caught.value)


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


def test_metrics_added_later_choose_the_best_checkpoint(tmp_path):
    for step, area in ((1, 0.9), (2, 0.8), (3, 0.7)):
        folder = write(tmp_path, step, loss=0.1)
        add_metrics(folder, {"auroc": area})
        assert load_weights(folder).verified
        assert json.loads((folder / "metrics.json").read_text())["auroc"] == area
    prune(tmp_path, keep=1, best="auroc")
    assert names(tmp_path) == ["step-00000003", "step-00000001"]


def test_a_checkpoint_with_damaged_metrics_is_not_deleted(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step, auroc=0.5)
    metrics = tmp_path / "checkpoints" / "step-00000001" / "metrics.json"
    metrics.write_text(metrics.read_text().replace("0.5", "0.1"))
    prune(tmp_path, keep=1, best="auroc")
    assert names(tmp_path) == ["step-00000003", "step-00000001"]


def test_all_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        folder = write(tmp_path, 1)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}


def test_an_existing_checkpoint_is_never_replaced(tmp_path):
    write(tmp_path, 1, value=5)
    with pytest.raises(CheckpointError, match="cannot write"):
        write(tmp_path, 1, value=6)
    assert newest(tmp_path).weights["a"][0, 0] == 5


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
    state = TrainingState(large)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write"):
            save(tmp_path, 2, weights=large, config={}, metrics={}, training=state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert newest(tmp_path).step == 1


def test_nothing_but_tensors_is_unpickled(tmp_path):
    folder = write(tmp_path, 1)
    drop_checksums(folder)
    torch.save({"optimizer": Planted()}, folder / "training.pt")
    with pytest.raises(CheckpointError, match=r"training.pt.*mkdir"):
        newest(tmp_path)
    assert not (tmp_path / "planted").exists()


class Planted:
    """Runs a command when unpickled."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


def test_a_missing_checkpoint_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.safetensors"):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            load_weights(path)
