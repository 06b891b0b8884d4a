"""A tiny training run of one process, started by the command line's arguments."""

import pytest
import yaml

from train_ddp import main

CONFIG = {
    "data": {"num_negatives": 3},
    "input": {"image_size": 64, "num_threads": 1, "device": "cpu"},
    "model": {
        "backbone": "test_convnext",
        "embed_dim": 48,
        "depth": 1,
        "num_heads": 2,
        "similarity_start": True,
    },
    "objective": {"name": "bce"},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "schedule": {"name": "constant", "warmup": 2},
    "train": {"iterations": 6, "global_batch": 8},
    "checkpoint": {"every": 3},
    "log": {"every": 1, "tensorboard": False},
}


@pytest.fixture
def config_file(pack_path, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.safe_dump({**CONFIG, "data": {"pack": str(pack_path), "num_negatives": 3}})
    )
    return path


@pytest.fixture
def train(config_file, tmp_path):
    """Runs the command with further options; the folder of the run is ``tmp_path / run``."""

    def command(*options, run="run"):
        return main(["--config", str(config_file), "--out", str(tmp_path / run), *options])

    return command


@pytest.fixture
def protocol_file(tmp_path):
    """A protocol on the pack of ``pack_path``: day against night, ant and bee known."""
    protocol = {
        "name": "tiny",
        "dataset": "imagefolder",
        "known": ["ant", "bee"],
        "targets": {
            "night": {
                "reference": [{"domains": ["day"], "classes": ["ant", "bee"]}],
                "test": [{"domains": ["night"]}],
            }
        },
    }
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(protocol))
    return path


@pytest.fixture
def error_line(capsys):
    """Returns what a command wrote to standard error: exactly one line of an error."""

    def line():
        captured = capsys.readouterr().err
        assert captured.startswith("error: ")
        assert captured.count("\n") == 1
        return captured

    return line
