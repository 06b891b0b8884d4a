"""Every number of the configuration has a range; a mistake is one line that names key and range."""

import dataclasses
import re

import pytest

from training.config import TrainConfig

WRONG = [
    ("seed", -1),
    ("seed", 2**63),
    ("seed", 2**70),
    ("data.num_negatives", -1),
    ("data.sampling.classes", 1),
    ("data.sampling.images", 1),
    ("data.sampling.negatives", 0),
    ("data.sampling.groups", 0),
    ("model.embed_dim", 0),
    ("model.depth", 10**6),
    ("model.num_heads", -3),
    ("model.num_logits", 3),
    ("objective.compression", 0),
    ("objective.margin", ".inf"),
    ("objective.gamma", -1),
    ("optimizer.lr", -1e-9),
    ("optimizer.lr", ".inf"),
    ("optimizer.momentum", 1),
    ("optimizer.betas", "[0.9, 1.0]"),
    ("optimizer.betas", "[.nan, 0.9]"),
    ("optimizer.weight_decay", ".nan"),
    ("optimizer.backbone_factor", -1),
    ("schedule.warmup", -1),
    ("schedule.milestones", "[3, -1]"),
    ("schedule.gamma", -0.1),
    ("train.iterations", 0),
    ("train.iterations", 10**8),
    ("train.global_batch", 2**40),
    ("train.recipe_ranks", 0),
    ("train.accumulate", 0),
    ("train.views", 0),
    ("train.pairs_at_once", 0),
    ("train.clip", -1),
    ("train.clip", 0),
    ("train.clip", ".inf"),
    ("train.ema", 1),
    ("train.ema", -0.1),
    ("train.max_loss", 0),
    ("train.max_loss", ".nan"),
    ("input.image_size", 100_000),
    ("input.image_size", 0),
    ("input.mean", "[0.5, 0.5, 2]"),
    ("input.std", "[0, 0.2, 0.2]"),
    ("input.std", "[0.2, .nan, 0.2]"),
    ("input.crop_pct", 0),
    ("input.crop_pct", ".inf"),
    ("input.num_threads", 100_000),
    ("input.num_threads", -1),
    ("input.prefetch", 0),
    ("input.prefetch", 10**9),
    ("input.max_damaged", -1),
    ("input.hw_decoder_load", 1.1),
    ("input.preallocate", ".nan"),
    ("augment.scale", "[0.5, 0.4]"),
    ("augment.scale", "[0, 1]"),
    ("augment.ratio", "[2, 1]"),
    ("augment.ratio", "[1, .inf]"),
    ("augment.flip", 1.5),
    ("augment.jitter", ".nan"),
    ("augment.brightness", -0.1),
    ("augment.contrast", ".inf"),
    ("augment.saturation", -5),
    ("augment.hue", 0.6),
    ("augment.grayscale", -1),
    ("validation.batch_size", 0),
    ("checkpoint.every", 0),
    ("checkpoint.keep", 0),
    ("log.every", 0),
    ("log.samples", -1),
    ("profile", -1),
    ("log.peak_tflops", 0),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_number_out_of_range_is_one_line(train, error_line, key, value):
    assert train(f"--{key}={value}") == 2
    assert key.split(".")[-1] in error_line()


def test_every_number_is_tried():
    def numbers(kind, prefix=""):
        for field in dataclasses.fields(kind):
            if field.default_factory is not dataclasses.MISSING:
                yield from numbers(field.default_factory, f"{prefix}{field.name}.")
            elif "Literal" not in str(field.type) and re.search("int|float", str(field.type)):
                yield f"{prefix}{field.name}"

    named = set(numbers(TrainConfig)) | {"data.num_negatives"}
    assert named - {key for key, _ in WRONG} == set()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data.domains=train", "data.domains must be a list such as [a, b] or null, not train"),
        ("--schedule.milestones=5", "schedule.milestones must be a list"),
        ("--seed=1.5", "seed must be a whole number, not 1.5"),
        ("--optimizer.name=adam", "optimizer.name must be one of lars, torchlars, sgd, adamw"),
        ("--train.clip=high", "train.clip must be a number or null, not high"),
        ("--data.balanced=maybe", "data.balanced must be true or false, not maybe"),
    ],
)
def test_a_value_of_another_type_is_one_plain_line(train, error_line, option, words):
    assert train(option) == 2
    assert words in error_line()


def test_scaling_out_of_range_is_one_line(train, error_line):
    options = ["--scale=linear", "--train.global_batch=4096", "--train.recipe_ranks=4096"]
    assert train(*options, "--train.iterations=99999999") == 2
    assert "scale linear on 1 devices: train.iterations" in error_line()
