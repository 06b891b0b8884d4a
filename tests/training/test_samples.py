"""Sheets of training pairs: what is drawn, where, and when."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.config import Preprocessing
from pipelines.loader import PairBatch
from pipelines.pack import Pack
from pipelines.show import pair_sheet
from tests.training.runs import assert_same_weights
from training.samples import JudgedPairs

GROUPS = ["--data.sampling.kind=classes", "--data.sampling.classes=3", "--data.sampling.groups=4"]


@pytest.fixture
def judged(pack_path):
    """Eight pairs, the first six of different classes; the last one has a mean as its partner."""
    pack = Pack(pack_path)
    images = torch.linspace(-1, 1, 16).view(16, 1, 1, 1).expand(16, 3, 8, 8)
    left, right = torch.arange(8), torch.arange(8, 16)
    right[7] = 16
    batch = PairBatch(0, images, left, right, left < 6, left, np.arange(16))
    return JudgedPairs(batch, torch.arange(8.0) - 3.5), pack


def captions(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_a_sheet_shows_pairs_of_both_kinds_with_their_logits(judged, monkeypatch):
    drawn = []

    def recorded(*arguments):
        drawn.append(pair_sheet(*arguments))
        return drawn[-1]

    monkeypatch.setattr("training.samples.pair_sheet", recorded)
    (pairs, pack), preprocessing = judged, Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    sheet = pairs.sheet(pack, preprocessing, 7)
    (figure,) = drawn
    different = [f"different classes, logit {logit:+.2f}" for logit in (-3.5, -2.5, -1.5, -0.5)]
    assert captions(figure) == ["same class, logit +2.50", *different]
    left = figure.axes[0].images[0].get_array()[0, 0]
    assert left.tolist() == [round(255 * (0.5 + 0.5 * (-1 + 2 * 6 / 15)))] * 3
    assert sheet.width > 1000


HARD = ["--data.sampling.hard_negatives=1"]


@pytest.mark.parametrize("options", [[], [*GROUPS, *HARD]], ids=["pairs", "groups"])
def test_tensorboard_shows_a_sheet_every_so_many_steps_and_training_is_the_same(
    train, tmp_path, options
):
    options = [*options, "--train.iterations=4", "--log.tensorboard=true", "--log.every=3"]
    assert train(*options, "--log.samples=2") == 0
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    events = board.Images("pairs")
    assert [event.step for event in events] == [2, 4]
    with Image.open(io.BytesIO(events[0].encoded_image_string)) as image:
        assert image.size == (events[0].width, events[0].height)
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 100
    assert [event.step for event in board.Scalars("loss")] == [2, 3, 4]
    assert train(*options, run="without") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "without", rtol=0, atol=0)


@pytest.mark.parametrize("options", [["--task=classification"], ["--train.backbone=frozen"]])
def test_training_that_sees_no_pairs_of_images_is_one_line(train, error_line, options):
    assert train("--log.samples=1", "--log.tensorboard=true", *options) == 2
    assert "log.samples needs task: relation and train.backbone: trained" in error_line()
