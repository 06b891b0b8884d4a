import os
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
