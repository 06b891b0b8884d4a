"""Training as processes that are started, killed, signaled and restarted."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
import torch

from runtime.checkpoint import load_weights, newest, step_folders
from tests.commands import Command
from tests.common import ROOT
from tests.training.runs import assert_same_weights, logged
from train_ddp import main

INTERRUPTED = 75


@pytest.fixture
def start(runner, config_file, tmp_path):
    """Starts the command as a process, under torchrun if ``ranks`` is given.

    torchrun's processes are forks of it, since importing takes seconds.
    """
    started = []

    def command(*options, run="run", ranks=None, torchrun=("--standalone",)):
        module, arguments = "train_ddp", ["--config", config_file, "--out", tmp_path / run]
        if ranks is not None:
            module, script = "torch.distributed.run", [ROOT / "train_ddp.py", *arguments]
            arguments = [f"--nproc-per-node={ranks}", *torchrun]
            arguments += ["--run-path", "--start-method=fork", *script]
        words = [str(argument) for argument in (*arguments, *options)]
        started.append(runner.start(Command("train", module, words, ROOT, timeout=200)))
        return started[-1]

    yield command
    for process in started:
        process.kill()


def finish(process, code=0):
    """What the process has printed; it ends with the status ``code``."""
    outcome = process.wait()
    assert outcome.status == code, outcome
    return outcome.stdout + outcome.stderr


def losses(run):
    return {record["step"]: record["loss"] for record in logged(run)}


def wait_for_step(run, step, process):
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if (run / "log.jsonl").exists():
            lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
            done = [json.loads(line)["step"] for line in lines if line.endswith("\n")]
            if done and done[-1] >= step:
                return
        assert not process.has_ended, process.wait()
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached")


def workers(parent):
    """The ids of the training processes that torchrun, of process id ``parent``, has started."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
    return [pid for pid, ppid in pairs if ppid == parent]


def test_kill_9_at_random_steps_then_resume_equals_an_uninterrupted_run(start, tmp_path):
    every = "--checkpoint.every=3"
    for step in sorted(random.Random(7).sample(range(4, 24), 2)):
        process = start("--train.iterations=100000", every)
        wait_for_step(tmp_path / "run", step, process)
        os.kill(process.pid, signal.SIGKILL)
        finish(process, -signal.SIGKILL)
        assert step_folders(tmp_path / "run")
    length = f"--train.iterations={newest(tmp_path / 'run').step + 4}"
    assert "continuing" in finish(start(length, every))
    finish(start(length, "--checkpoint.every=100", run="whole"))
    assert_same_weights(tmp_path / "whole", tmp_path / "run", rtol=0, atol=0)
    states = [newest(tmp_path / run).training["optimizer"]["state"] for run in ("whole", "run")]
    for a, b in zip(states[0].values(), states[1].values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_one_two_and_four_ranks_train_alike_and_continue_each_other(start, config_file, tmp_path):
    averaging = "--train.ema=0.5"
    assert main(["--config", str(config_file), "--out", str(tmp_path / "one"), averaging]) == 0
    finish(start("--train.iterations=4", averaging, ranks=4))
    assert newest(tmp_path / "run").step == 4
    finish(start("--train.accumulate=2", averaging, ranks=2))
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert_same_weights(tmp_path / "one", tmp_path / "run", rtol=1e-3, atol=1e-5)
    assert load_weights(tmp_path / "run").is_averaged


def test_two_ranks_learn_the_whitening_of_one(start, config_file, tmp_path):
    options = ["--model.similarity_start=whitened", "--optimizer.lr=0", "--train.iterations=1"]
    assert main(["--config", str(config_file), "--out", str(tmp_path / "one"), *options]) == 0
    finish(start(*options, ranks=2))
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert_same_weights(tmp_path / "one", tmp_path / "run", rtol=1e-4, atol=1e-4)


def test_a_signal_saves_the_step_and_exits_with_its_own_code(start, tmp_path):
    process = start("--train.iterations=100000", "--checkpoint.every=100000")
    wait_for_step(tmp_path / "run", 2, process)
    os.kill(process.pid, signal.SIGUSR1)
    assert "SIGUSR1: saved step" in finish(process, INTERRUPTED)
    step = json.loads((tmp_path / "run" / "interrupted.json").read_text())["step"]
    assert newest(tmp_path / "run").step == step == max(losses(tmp_path / "run"))


def test_two_nodes_restart_after_a_killed_rank_and_save_on_sigterm(
    start, store, config_file, tmp_path
):
    options = ["--checkpoint.every=5", "--train.iterations=100000"]
    torchrun = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-conf=is_host=0", "--rdzv-id=job"]
    torchrun += [f"--rdzv-endpoint=127.0.0.1:{store.port}"]
    torchrun += ["--max-restarts=2", "--monitor-interval=0.1"]
    nodes = [start(*options, ranks=1, torchrun=torchrun) for _ in range(2)]
    wait_for_step(tmp_path / "run", 12, nodes[0])
    os.kill(workers(nodes[1].pid)[-1], signal.SIGKILL)
    wait_for_step(tmp_path / "run", max(losses(tmp_path / "run")) + 12, nodes[0])
    for node in nodes:
        os.kill(node.pid, signal.SIGTERM)
    outcomes = [node.wait() for node in nodes]
    assert any("continuing" in outcome.stdout for outcome in outcomes)
    assert all(outcome.status != 0 and not outcome.hung for outcome in outcomes)
    step = json.loads((tmp_path / "run" / "interrupted.json").read_text())["step"]
    assert newest(tmp_path / "run").step == step
    options = ["--log.every=1000", f"--train.iterations={step}"]
    main(["--config", str(config_file), "--out", str(tmp_path / "one"), *options])
    assert_same_weights(tmp_path / "one", tmp_path / "run", rtol=1e-2, atol=1e-4)


def test_ctrl_c_under_torchrun_saves_the_step_on_all_ranks(start, tmp_path):
    process = start("--train.iterations=100000", "--checkpoint.every=100000", ranks=2)
    wait_for_step(tmp_path / "run", 2, process)
    for pid in (*workers(process.pid), process.pid):  # a terminal signals them all, torchrun again
        os.kill(pid, signal.SIGINT)
    outcome = process.wait()
    assert "SIGINT: saved step" in outcome.stdout
    assert "KeyboardInterrupt" not in outcome.stdout + outcome.stderr
    step = json.loads((tmp_path / "run" / "interrupted.json").read_text())["step"]
    assert newest(tmp_path / "run").step == step == max(losses(tmp_path / "run"))


def test_a_bug_on_one_rank_shows_its_traceback_and_ends_the_others(
    fail_on_rank_1, config_file, tmp_path
):
    sabotage = "import training.run; training.run.train = lambda *_: 1 / 0"
    options = ["--config", config_file, "--out", tmp_path / "run", "--train.iterations=100000"]
    (status, error), (bug_status, bug) = fail_on_rank_1(sabotage, "train_ddp", *options)
    assert (status, bug_status) == (1, 1)
    assert bug.startswith("Traceback")
    assert "ZeroDivisionError" in bug
    assert error.startswith("error: another process of this run has ended")
    assert error.count("\n") == 1
