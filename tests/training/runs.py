"""What a training run leaves, as its tests read it."""

import json
import shutil

import torch

from runtime.checkpoint import load_weights, step_folders


def logged(run):
    """The records of the run's log, in their order."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def forget_newest(run, copy):
    """Copy a run as it was before its newest checkpoint."""
    shutil.copytree(run, copy)
    shutil.rmtree(step_folders(copy)[0])


def assert_same_weights(left, right, **tolerance):
    """The newest checkpoints of two runs have the same weights."""
    a, b = load_weights(left).weights, load_weights(right).weights
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=name, **tolerance)
