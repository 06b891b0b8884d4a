"""Evaluation by one process or several, interrupted, and where one of them fails."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

import evaluate
from tests.commands import Command, Outcome
from tests.common import ROOT
from tests.evaluation.scores import assert_equal_scores, scores


@pytest.fixture
def on_processes(runner):
    """Runs the command under torchrun, whose processes are forks of it."""

    def run(count: int, words: list[str]) -> Outcome:
        launcher = ["--standalone", f"--nproc-per-node={count}", "--run-path"]
        launcher += ["--start-method=fork", str(ROOT / "evaluate.py")]
        words = [*launcher, *words]
        command = Command("evaluate", "torch.distributed.run", words, ROOT, timeout=200)
        return runner.start(command).wait()

    return run


def test_scores_do_not_depend_on_the_number_of_processes(arguments, on_processes, tmp_path):
    options = {"evaluators": "all", "classifier": "full", "budget": 2, "target": "day"}
    assert evaluate.main(arguments("one", no_cache=True, **options)) == 0
    done = on_processes(3, arguments("several", **options))
    assert done.status == 0, done.stderr
    assert_equal_scores(scores(tmp_path / "several"), scores(tmp_path / "one"))
    # What they keep is what one process reads.
    assert evaluate.main(arguments("again", **options)) == 0
    assert_equal_scores(scores(tmp_path / "again"), scores(tmp_path / "one"))


def test_all_processes_end_where_the_first_cannot_write(arguments, on_processes, tmp_path):
    (tmp_path / "out").write_text("not a folder")
    done = on_processes(2, arguments())
    assert done.status != 0
    assert not done.hung
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ") and "is not a folder" in line]
    ours = rf'File "{ROOT}/(evaluat|runtime|pipelines)'  # the launcher's own traceback is not ours
    assert not re.search(ours, done.stderr)


def test_a_mistake_on_one_rank_is_its_line_and_ends_the_others(fail_on_rank_1, arguments):
    sabotage = "arguments.append('--target=dusk')"
    words = arguments(no_cache=True)
    (status, error), (mistake_status, mistake) = fail_on_rank_1(sabotage, "evaluate", *words)
    assert (status, mistake_status) == (1, 2)
    assert mistake.startswith("rank 1: ")
    assert "dusk" in mistake
    assert error.startswith("error: another process of this run has ended")
    assert mistake.count("\n") == error.count("\n") == 1


def test_ctrl_c_is_one_line_and_leaves_no_results(runner, arguments, pack_path, tmp_path):
    process = runner.start(Command("evaluate", "evaluate", arguments(resamples=10**6), tmp_path))
    maps = Path(f"/proc/{process.pid}/maps")
    while str(pack_path) not in maps.read_text():  # it has opened the pack and begun its work
        assert not process.has_ended, process.wait()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    outcome = process.wait()
    assert outcome.status == 130
    assert outcome.stderr == "error: interrupted; rerun the same command to resume\n"
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
