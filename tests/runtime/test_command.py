import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.command import run_command
from runtime.errors import ConfigError
from tests.common import ROOT


def test_control_characters_in_an_error_are_written_out(capsys):
    def fail() -> int:
        raise ConfigError("no class \x1b[31mred\nof Größe")

    assert run_command(fail) == 2
    assert capsys.readouterr().err == "error: no class \\x1b[31mred of Größe\n"


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["", "unbuffered"])
@pytest.mark.parametrize("length", [1, 100_000])
def test_a_full_standard_output_is_one_line(environment, length):
    action = f"lambda: print('x' * {length}) or 0"
    code = f"from runtime.command import run_command; raise SystemExit(run_command({action}))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}, **environment},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize("given", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_how_openmp_threads_wait_is_up_to_the_user(given, monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert run_command(lambda: 0) == 0
    assert {name: os.environ[name] for name in WAITING if name in os.environ} == given


def test_openmp_threads_of_training_and_evaluation_soon_sleep():
    """libgomp prints the settings that it reads when it is loaded, as torch does in a command."""
    code = """
import ctypes, importlib.util, pathlib
import evaluate, train_ddp
from runtime.command import run_command
assert "libgomp" not in pathlib.Path("/proc/self/maps").read_text()
(torch,) = importlib.util.find_spec("torch").submodule_search_locations
(library,) = pathlib.Path(torch, "lib").glob("libgomp*")
run_command(lambda: ctypes.CDLL(library) and 0)
"""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr) == ["1000"]
