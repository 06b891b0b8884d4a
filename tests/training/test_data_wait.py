"""Idle time of a device, on a timeline that the test advances."""

import time

import pytest
import torch

from training.data_wait import DataWait


class Timeline:
    """Host and GPU: the host launches work and goes on, the GPU does it in order."""

    def __init__(self):
        self.host = self.gpu = 0.0

    def launch(self, seconds):
        self.gpu = max(self.gpu, self.host) + seconds

    def event(self, **_):
        return Event(self)


class Event:
    def __init__(self, timeline):
        self._timeline = timeline

    def record(self):
        self.reached = max(self._timeline.gpu, self._timeline.host)

    def synchronize(self):
        self._timeline.host = max(self._timeline.host, self.reached)

    def elapsed_time(self, later):
        return 1000 * (later.reached - self.reached)


@pytest.fixture
def timeline(monkeypatch):
    line = Timeline()
    monkeypatch.setattr(torch.cuda, "Event", line.event)
    monkeypatch.setattr(time, "perf_counter", lambda: line.host)
    return line


GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def steps(timeline, waiting, *, waits, count=10, parts=1):
    """``count`` steps, each of ``parts`` waits of ``waits`` s with 0.9 s of work after each."""
    for _ in range(count):
        for _ in range(parts):
            with waiting:
                timeline.host += waits
            timeline.launch(0.9)


def test_a_device_that_is_kept_busy_does_not_wait(timeline):
    waiting = DataWait(GPU)
    steps(timeline, waiting, waits=0.5)
    assert waiting.take() == pytest.approx(0.5)  # before the first step
    assert waiting.take() == 0


def test_only_the_part_of_a_wait_after_the_device_ran_dry_counts(timeline):
    waiting = DataWait(GPU)
    steps(timeline, waiting, waits=1.0)
    assert waiting.take() == pytest.approx(1.0 + 9 * 0.1)


def test_time_for_checkpoints_and_validation_is_not_waiting(timeline):
    for device in (GPU, CPU):
        waiting = DataWait(device)
        for _ in range(3):
            steps(timeline, waiting, waits=1.0, count=1)
            timeline.host += 100  # the device finishes and stands idle, but not for data
        assert waiting.take() == pytest.approx(3.0), device


def test_all_waits_of_an_accumulated_step_count(timeline):
    waiting = DataWait(GPU)
    steps(timeline, waiting, waits=1.0, count=5, parts=4)
    assert waiting.take() == pytest.approx(1.0 + 19 * 0.1)
