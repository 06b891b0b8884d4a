import pytest
import torch

from evaluation import progress
from evaluation.progress import Progress
from runtime.distributed import Process

FIRST, SECOND = (Process(rank, rank, 2, torch.device("cpu")) for rank in (0, 1))


def run(process) -> None:
    with Progress("features", 1500, "image", process) as bar:
        for _ in range(3):
            bar.add(500)


def test_a_pipe_gets_lines_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "INTERVAL", 0)
    run(FIRST)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", about ")[0] for line in lines] == [
        "features: 500 of 1,500 images",
        "features: 1,000 of 1,500 images",
    ]
    assert all(line.endswith(" left") for line in lines)


@pytest.mark.parametrize(("process", "interval"), [(FIRST, 30), (SECOND, 0)])
def test_short_phases_and_other_processes_are_silent(process, interval, monkeypatch, capsys):
    monkeypatch.setattr(progress, "INTERVAL", interval)
    run(process)
    assert capsys.readouterr().err == ""
