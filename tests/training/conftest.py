"""A tiny training run of one process, started by the command line's arguments."""

import pytest
import yaml

from tests.common import tiny_run
from train_ddp import main


@pytest.fixture
def config_file(pack_path, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_run(pack_path, model={"similarity_start": True})))
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
