"""What a training run meets in its folder: damaged checkpoints, other runs, full disks."""

import fcntl
import json
import os
import re
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from pipelines.pack import Pack
from runtime.checkpoint import load_weights, step_folders
from tests.common import ROOT, TINY_MODEL, flip
from training.output_config import LogConfig
from training.run_files import LogError
from training.run_log import RunLog


def steps(run):
    return [int(folder.name[-8:]) for folder in step_folders(run)]


@pytest.mark.parametrize("file", ["weights.safetensors", "training.pt", "config.yaml"])
def test_a_damaged_newest_checkpoint_is_refused_and_nothing_is_changed(
    train, tmp_path, capsys, error_line, file
):
    train("--train.iterations=2", "--checkpoint.every=1")
    capsys.readouterr()
    newest, older = step_folders(tmp_path / "run")
    flip(newest / file, (newest / file).stat().st_size // 2)
    assert train("--checkpoint.every=1", "--checkpoint.keep=1") == 2
    line = error_line()
    assert str(newest / file) in line
    assert f"delete {newest} to continue from {older.name}" in line
    assert steps(tmp_path / "run") == [2, 1]
    shutil.rmtree(newest)
    assert train("--train.iterations=2") == 0
    assert steps(tmp_path / "run") == [2, 1]


@pytest.mark.parametrize("kind", ["empty folder", "file"])
def test_what_is_not_a_checkpoint_but_named_like_one_is_refused(train, tmp_path, error_line, kind):
    place = tmp_path / "run" / "checkpoints" / "step-00000009"
    place.parent.mkdir(parents=True)
    place.mkdir() if kind == "empty folder" else place.write_text("")
    assert train() == 2
    assert "step-00000009" in error_line()
    assert steps(tmp_path / "run") == [9]


def test_an_imported_checkpoint_is_not_taken_for_a_run_to_continue(train, tmp_path, error_line):
    train("--train.iterations=1", run="source")
    folder = step_folders(tmp_path / "source")[0]
    target = tmp_path / "run" / "checkpoints" / "step-00000000"
    shutil.copytree(folder, target)
    (target / "training.pt").unlink()
    assert train() == 2
    assert "training.pt" in error_line()


def test_an_optimizer_state_of_another_network_is_one_line(train, tmp_path, capsys, error_line):
    train("--train.iterations=1")
    folder = step_folders(tmp_path / "run")[0]
    (folder / "checksums.json").unlink()
    training = torch.load(folder / "training.pt", weights_only=True)
    for values in training["optimizer"]["state"].values():
        values["momentum_buffer"] = torch.zeros(7)
    torch.save(training, folder / "training.pt")
    capsys.readouterr()
    assert train() == 2
    assert "optimizer state that does not fit" in error_line()


def test_a_checkpoint_without_checksums_is_continued_and_said_so(train, tmp_path, capsys):
    train("--train.iterations=1")
    (step_folders(tmp_path / "run")[0] / "checksums.json").unlink()
    assert train("--train.iterations=2") == 0
    assert "after step 1, whose checkpoint has no checksums" in capsys.readouterr().out


def test_continuing_needs_no_starting_weights(train, tmp_path):
    assert train("--train.iterations=1", run="warm") == 0
    option = f"--model.backbone_weights={tmp_path / 'warm'}"
    assert train(option, "--train.iterations=1") == 0
    shutil.rmtree(tmp_path / "warm")
    assert train(option, "--train.iterations=2") == 0


def test_damaged_backbone_weights_are_refused(train, tmp_path, capsys, error_line):
    train("--train.iterations=1", run="warm")
    file = step_folders(tmp_path / "warm")[0] / "weights.safetensors"
    flip(file, file.stat().st_size // 2)
    for source in (tmp_path / "warm", file):
        capsys.readouterr()
        assert train(f"--model.backbone_weights={source}") == 2
        assert "sha256" in error_line()


def test_a_second_training_into_the_same_folder_is_refused(train, tmp_path, error_line):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert train() == 2
        assert "another training is writing to" in error_line()
    assert train("--train.iterations=1") == 0


@pytest.mark.slow
def test_all_ranks_refuse_a_folder_that_is_in_use(config_file, tmp_path):
    (tmp_path / "run").mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = ["train_ddp.py", "--config", str(config_file), "--out", str(tmp_path / "run")]
    with (tmp_path / "run" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, *launcher, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode != 0
    assert "error: another training is writing to" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture
def damaged_pack(pack_path, tmp_path):
    """A copy of the pack in which one image of the domain ``night`` is overwritten."""
    path = tmp_path / "damaged"
    shutil.copytree(pack_path, path)
    pack = Pack(path)
    row = int((pack.index.domain == list(pack.manifest.domains).index("night")).nonzero()[0][0])
    shard = path / pack.manifest.shards[pack.index.shard[row]].name
    with shard.open("r+b") as file:
        file.seek(pack.index.offset[row])
        file.write(bytes(pack.index.size[row]))
    return path


def test_a_validation_that_fails_loses_no_step(
    train, protocol_file, damaged_pack, pack_path, tmp_path, error_line
):
    validation = [f"--validation.protocol={protocol_file}", "--data.domains=[day]"]
    assert train(*validation, f"--validation.pack={damaged_pack}") == 2
    assert str(damaged_pack) in error_line()
    assert steps(tmp_path / "run") == [3]
    assert train(*validation, f"--validation.pack={pack_path}") == 0
    newest = step_folders(tmp_path / "run")[0]
    assert "auroc" in json.loads((newest / "metrics.json").read_text())
    assert load_weights(newest).verified


def test_a_log_that_cannot_be_written_ends_the_run_with_its_steps_saved(
    train, tmp_path, error_line
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").symlink_to("/dev/full")
    assert train() == 2
    assert "log.jsonl: No space left on device" in error_line()
    assert steps(tmp_path / "run") == [1]


@pytest.mark.parametrize(
    "place", ["run", "log.jsonl", "tensorboard", "checkpoints", "lock", "interrupted.json"]
)
def test_the_wrong_kind_of_file_in_the_runs_folder_is_one_line(train, tmp_path, error_line, place):
    run = tmp_path / "run"
    if place == "run":
        run.write_text("")
    elif place in ("log.jsonl", "lock", "interrupted.json"):
        (run / place).mkdir(parents=True)
    else:
        run.mkdir()
        (run / place).write_text("")
    assert train("--log.tensorboard=true", "--train.iterations=1") == 2
    assert str(run) in error_line()


def test_a_tensorboard_file_that_cannot_grow_is_one_error(tmp_path):
    values = {"loss": 1.0}
    with RunLog(tmp_path, LogConfig(), active=True, first=0, total=9) as log:
        log.metrics(1, values)
        (written,) = (tmp_path / "tensorboard").iterdir()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (written.stat().st_size + 10, limits[1]))
        try:
            with pytest.raises(LogError, match="tensorboard"):
                log.metrics(2, values)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_tensorboard_reads_the_values_that_were_logged(tmp_path):
    with RunLog(tmp_path, LogConfig(), active=True, first=0, total=9) as log:
        for step in (1, 2):
            log.metrics(step, {"loss": 0.5 * step, "auroc": 0.25})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 0.5), (2, 1.0)]
    assert board.Tags()["scalars"] == ["loss", "auroc"]


def test_tensorboard_has_one_chart_of_each_metric_with_the_evaluators_as_lines(tmp_path):
    names = [
        f"validation/{metric}/{line}"
        for metric in ("auroc", "fpr95")
        for line in ("cosine", "cosine/night", "knn", "knn/night")
    ]
    with RunLog(tmp_path, LogConfig(), active=True, first=0, total=9) as log:
        log.metrics(1, {"loss": 1.0})
        log.metrics(2, dict.fromkeys(names, 0.5))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["scalars"] == ["loss", *names]
    (event,) = board.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    lines = {
        chart.title: [name for tag in chart.multiline.tag for name in names if re.match(tag, name)]
        for chart in category.chart
    }
    assert lines == {
        "auroc": ["validation/auroc/cosine", "validation/auroc/knn"],
        "auroc on night": ["validation/auroc/cosine/night", "validation/auroc/knn/night"],
        "fpr95": ["validation/fpr95/cosine", "validation/fpr95/knn"],
        "fpr95 on night": ["validation/fpr95/cosine/night", "validation/fpr95/knn/night"],
    }


def test_a_torn_last_line_of_the_log_stays_the_only_one(train, tmp_path):
    train("--train.iterations=1")
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    train("--train.iterations=3")
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 3
    assert len(lines) == 4


def test_random_weights_are_said_so(train, tmp_path, capsys):
    words = "the backbone starts from random weights"
    assert train("--train.iterations=1") == 0
    assert words in capsys.readouterr().out
    assert train("--train.iterations=2") == 0
    assert train("--dry-run", f"--model.backbone_weights={tmp_path / 'run'}", run="other") == 0
    assert words not in capsys.readouterr().out


@pytest.mark.parametrize("switch", ["--dry-run", "--dry_run"])
def test_a_dry_run_fetches_and_writes_nothing(train, tmp_path, monkeypatch, capsys, switch):
    def fetch(*_, **__):
        raise AssertionError("a dry run fetched weights")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("timm.models._builder.load_pretrained", fetch)
    assert train(switch, "--model.pretrained=true") == 0
    words = f"timm's weights of {TINY_MODEL['backbone']} (not fetched in a dry run)"
    assert words in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_ascii_locale_trains(config_file, tmp_path):
    options = ["--config", config_file, "--out", tmp_path / "run", "--train.iterations=1"]
    done = subprocess.run(
        [sys.executable, "train_ddp.py", *options],
        cwd=ROOT,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
