"""`python -m benchmarks.gpu`, run small on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import groups, isolation
from benchmarks.gpu.correctness import Differences
from benchmarks.gpu.isolation import Part, PartError
from benchmarks.gpu.machine import run_tests
from benchmarks.gpu.node import CPU_SIZE, Budget, Node
from benchmarks.gpu.packs import RESIZED, draw_pack
from tests.commands import Command
from tests.common import ROOT

NAMES = [part.name for part in command.PARTS]


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Ends the server of this process, which has imported all parts: later tests' forks of it, the
    workers of a pack, would take several times as long."""
    yield
    forkserver._forkserver._stop()


@pytest.fixture
def start(runner):
    """Starts the command as a process."""

    def command(*options, **environment):
        words = [str(option) for option in options]
        job = Command("gpu", "benchmarks.gpu.__main__", words, ROOT, environment=environment)
        return runner.start(job)

    return command


def content(out):
    return json.loads((out / "gpu.json").read_text())


def part(name):
    return Part(name, f"broken_parts.{name}", 1)


def test_each_part_is_in_the_table_and_in_the_file(tmp_path):
    words = ["-m", "benchmarks.gpu", "--device", "cpu", "--out", str(tmp_path), "--minutes", "0.1"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    log = (tmp_path / "gpu.log").read_text()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr + log
    found = content(tmp_path)
    assert found["status"] == "complete"
    assert list(found["parts"]) == NAMES
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[:2]] == ["part", "---"]
    for name, result in found["parts"].items():
        assert result["status"] == "ok"
        rows = [line for line in lines if line[0] == name]
        assert [row["what"] for row in result["rows"]] == [line[1] for line in rows] != []
        assert all(row["passed"] in (None, True) for row in result["rows"])


def test_an_interrupted_run_keeps_the_finished_parts(start, tmp_path):
    process = start("--device", "cpu", "--out", tmp_path, "--minutes", 5)
    while not ((tmp_path / "gpu.json").exists() and "pixels" in content(tmp_path)["parts"]):
        assert not process.has_ended, process.wait()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    outcome = process.wait()
    assert outcome.status == 130
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("interrupted;")
    found = content(tmp_path)
    assert found["status"] == "interrupted"
    assert found["parts"]["versions"]["status"] == "ok"
    assert found["parts"]["versions"]["rows"]
    assert "gpu tests" not in found["parts"]


def test_without_a_gpu_it_says_so_in_one_line(start, tmp_path):
    outcome = start("--out", tmp_path / "out", CUDA_VISIBLE_DEVICES="").wait()
    assert outcome.status == 2
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert "sees no GPU" in line
    assert "--device cpu" in line
    assert not (tmp_path / "out").exists()


def test_a_broken_part_leaves_the_others_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "PARTS", tuple(map(part, ("raises", "dies", "wrong", "fine"))))
    assert command.main(["--device", "cpu", "--out", str(tmp_path)]) == 1
    parts = content(tmp_path)["parts"]
    assert [result["status"] for result in parts.values()] == ["error", "error", "failed", "ok"]
    assert parts["raises"]["error"] == "ValueError: no such"
    assert "line " in parts["raises"]["details"]
    assert "SIGSEGV" in parts["dies"]["error"]
    table = capsys.readouterr().out
    for name in ("raises", "dies"):
        assert [row["what"] for row in parts[name]["rows"]] == ["before"]
        assert f"| {name} | error | {parts[name]['error']} | FAILED |" in table


def test_a_part_that_hangs_is_stopped(tmp_path, monkeypatch):
    rows = isolation.run(part("hangs"), Node("cpu", tmp_path, CPU_SIZE), 0.0, tmp_path / "log")
    assert next(rows).what == "before"
    monkeypatch.setattr(isolation, "_GRACE", 0.1)
    with pytest.raises(PartError, match="stopped"):
        next(rows)


def test_time_is_split_among_the_measurements_that_fit():
    assert [item for item, _ in Budget(3600).split("abc")] == ["a", "b", "c"]
    spent = Budget(0)
    assert [item for item, _ in spent.split("abc")] == ["a"]
    assert spent.left_out == 2


@pytest.mark.parametrize(
    ("damage", "num_wrong"),
    [
        (lambda images: images, 0),
        (lambda images: images + 0.01, 0),
        (lambda images: images.flip(0), 2),
        (lambda images: torch.cat([images[:1, :, :48], images[1:2, :, 48:]], 2), 1),
        (lambda images: images.where(images < images.amax(), torch.nan), 1),
    ],
    ids=["equal", "rounded", "exchanged", "bottom of another", "not finite"],
)
def test_images_that_differ_from_their_reference_are_counted(damage, num_wrong):
    images = torch.randn(2, 3, 1, 1) + torch.randn(2, 3, 64, 64) / 10
    damaged = damage(images)
    assert Differences.between(damaged, images[: len(damaged)]).num_wrong == num_wrong


class Shortest(Budget):
    """Everything is measured, for as short as possible."""

    def split(self, items):
        return ((item, 0.0) for item in items)


def test_groups_are_compared_with_independent_pairs_and_with_the_plain_module(tmp_path):
    node = Node("cpu", tmp_path, CPU_SIZE)
    draw_pack(node, RESIZED)
    rows = {row.what: row.values for row in groups.steps(node, Shortest(0))}
    compared = {"groups": "independent pairs", "shared projections": "plain module"}
    compared["frozen backbone"] = "shared projections"
    assert rows.keys() == compared.keys() | set(compared.values())
    for name, base in compared.items():
        ratio = rows[name]["pairs/s"] / rows[base]["pairs/s"]
        assert rows[name][f"x {base}"] == pytest.approx(ratio)
    assert all("waiting share" in rows[name] for name in ("independent pairs", "groups"))


def test_tests_are_counted_and_fail_the_part(tmp_path):
    path = tmp_path / "test_drawn.py"
    path.write_text("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no')\n")
    row = run_tests([str(path)], tmp_path / "report.xml", 60)
    assert row.values == {"passed": 1, "failed": 0, "skipped": 1}
    assert row.passed
    path.write_text(path.read_text() + "def test_c(): assert False\n")
    row = run_tests([str(path)], tmp_path / "report.xml", 60)
    assert row.values == {"passed": 1, "failed": 1, "skipped": 1}
    assert not row.passed
