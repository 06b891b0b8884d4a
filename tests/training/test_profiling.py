"""The trace of a few steps: what is in it, and what is said if there are too few steps."""

import gzip
import json

from runtime.checkpoint import newest


def test_a_profile_has_the_steps_after_the_first_three_and_their_operators(train, tmp_path, capsys):
    assert train("--profile=2", "--checkpoint.every=100") == 0
    folder = tmp_path / "run" / "profile"
    trace, table = folder / "step-00000004.trace.json.gz", folder / "step-00000004.operators.txt"
    assert f"wrote the profile {trace}" in capsys.readouterr().out
    names = {
        event.get("name")
        for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    }
    steps = sorted(name for name in names if name and name.startswith("ProfilerStep"))
    assert steps == ["ProfilerStep#3", "ProfilerStep#4"]
    assert {"wait for data", "Optimizer.step#SGD.step", "aten::addmm"} <= names
    assert "aten::addmm" in table.read_text()
    assert newest(tmp_path / "run").step == 6


def test_a_profile_that_cannot_be_written_ends_no_run(train, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "profile").write_text("")
    assert train("--profile=1", "--train.iterations=4") == 0
    assert f"cannot write {tmp_path / 'run' / 'profile'}: " in capsys.readouterr().out
    assert newest(tmp_path / "run").step == 4


def test_too_few_steps_for_a_profile_are_one_line(train, error_line):
    assert train("--profile=4", "--dry-run") == 2
    assert "profile 4 needs 7 steps" in error_line()
