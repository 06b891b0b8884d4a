"""Numbers and words that no command can mean: each is one line, before anything begins."""

import re
from dataclasses import replace

import pytest
from alterations import GOOD, REFUSED, thinned
from kit import Kit

from tests.commands import Command, Runner

LARGE = 2**70

# The first value of every other one is tried in the fast suite.
TRAINING = {
    "seed": (-1, LARGE, 1.5, ".nan", "x", ""),
    "task": ("guess",),
    "scale": ("square",),
    "resume": ("perhaps",),
    "color": ("blue",),
    "train": (5,),
    "train.iterations": (-1, 0, 1.5, ".nan"),
    "train.global_batch": (2**40, 0, -40, LARGE, "all"),
    "train.accumulate": (-1, 0),
    "train.recipe_ranks": (-1, 0),
    "train.pairs_at_once": (-1, 0, 1.5),
    "train.clip": (-1, 0, ".nan", "-.inf", "x"),
    "train.max_loss": (".nan", -1, 0),
    "train.precision": ("float16", 3),
    "data.pack": ("", "nowhere", "/dev/null", "/dev/zero"),
    "data.num_negatives": (LARGE, -1, 0, 1.5),
    "data.sampling": (5, "classes", "[classes]"),
    "data.sampling.kind": ("pairs", ""),
    "data.sampling.classes": (LARGE, 1, -1, 2.5),
    "data.sampling.images": (LARGE, 1, 0, "x"),
    "data.sampling.negatives": (LARGE, 0, -1),
    "data.sampling.groups": (LARGE, 0, -1),
    "data.sampling.mean_partners": ("perhaps",),
    "data.domains": ("day", "3", "[3]", "[]", "[dusk]"),
    "data.classes": ("[ant]", "ant", "[[ant]]"),
    "data.splits": ("all", "[train]"),
    "input.image_size": (100_000, 0, -1, LARGE, 1.5),
    "input.mean": ("[127,127,127]", "[0.5]", "0.5", "[.nan,0,0]", "[-1,0,0]"),
    "input.std": ("[0,0,0]", "[0.5]", "[.nan,1,1]", "[2,2,2]"),
    "input.interpolation": ("nearest", 3),
    "input.crop_mode": ("crop", ""),
    "input.crop_pct": (0, -1, ".nan", 3, "x"),
    "input.num_threads": (100_000, -1, LARGE),
    "input.prefetch": (10**6, 0, -1, LARGE),
    "input.max_damaged": (-1, "x"),
    "input.hw_decoder_load": (".nan", -0.1, 1.1, ".inf"),
    "input.preallocate": (".nan", -0.1, 2),
    "input.dtype": ("float64",),
    "input.device": ("tpu",),
    "input.check_crc": ("perhaps",),
    "model.embed_dim": (-16, 0, 15, 10**9, LARGE),
    "model.depth": (-1, 0, LARGE),
    "model.num_heads": (0, -2, 3),
    "model.num_logits": (0, 3, -1),
    "model.head": ("round", ""),
    "model.backbone": ("hf_hub:a/b", "", "resnet0", "../resnet18"),
    "model.backbone_weights": ("/dev/zero", "nowhere", "/dev/null", "/"),
    "objective.name": ("guess", ""),
    "objective.compression": (".inf", 0, -1, ".nan"),
    "objective.margin": (".nan", 0, -1, ".inf"),
    "objective.gamma": (".inf", 0, -1, ".nan"),
    "optimizer.lr": (".nan", -1, ".inf", "x"),
    "optimizer.momentum": (-1, 1.5, ".nan"),
    "optimizer.betas": ("[2,2]", "[0.9]", "[.nan,0.9]", "0.9"),
    "optimizer.weight_decay": (".inf", -1, ".nan"),
    "optimizer.backbone_factor": (".nan", -1, ".inf"),
    "schedule.warmup": (-1, 1.5, ".nan"),
    "schedule.gamma": (".nan", -1, ".inf"),
    "schedule.milestones": ("[-1]", "[a]", "3"),
    "checkpoint.every": (0, -1),
    "checkpoint.keep": (-1, 0),
    "log.every": (0, -1),
    "augment.flip": (".nan", -1, 2),
    "augment.grayscale": (2, -1, ".nan"),
    "augment.brightness": (-1, ".nan", ".inf"),
    "augment.saturation": (".inf", -1, ".nan"),
    "augment.hue": (".nan", -1, 2),
    "augment.scale": ("[.nan,1]", "[0,1]", "[1,0.5]", "[0.5]", "0.5"),
    "augment.ratio": ("[1,.inf]", "[0,1]", "[-1,1]", "[.nan,1]"),
    "validation.batch_size": (-1, 0),
    "validation.protocol": ("/dev/null", "/dev/zero", "/"),
}

EVALUATION = {
    "--seed": ("-1", "x"),
    "--shots": ("6", "-1", str(LARGE)),
    "--image-size": ("100000", "-1", str(LARGE), "x"),
    "--crop-pct": ("0", "nan", "3", "x"),
    "--crop-mode": ("crop", ""),
    "--interpolation": ("nearest",),
    "--batch-size": ("-1", "x"),
    "--memory": ("-1", "x"),
    "--resamples": ("0", "-1", "x"),
    "--significant": ("0", "-1"),
    "--min-references": (str(LARGE), "0"),
    "--evaluators": ("guess", ""),
    "--target": ("dusk", ""),
    "--precision": ("float16", ""),
    "--device": ("tpu",),
    "--checkpoint": ("/dev/zero", "nowhere", "/dev/null", "/", ""),
    "--pack": ("/dev/null", "nowhere", "/", ""),
    "--protocol": ("/dev/zero", "/dev/null", "nowhere", "/", ""),
    "--color": ("blue",),
}

SHOW = {
    "--pairs": (str(LARGE), "0", "-1", "x"),
    "--image-size": ("100000", "0", "-1", str(LARGE), "x"),
    "--num-negatives": (str(LARGE), "0", "-1"),
    "--seed": (str(LARGE), "-1", "x"),
    "--splits": ("train", ""),
    "--device": ("tpu",),
}

PACKING = {
    "--shard-size": ("0", "-1KB", "0MB", "nanMB", "1e3MB", "many"),
    "--seed": ("-1", str(LARGE), "x"),
    "--resize-short": ("-1", "x"),
    "--quality": ("101", "0", "-1", "x"),
    "--max-pixels": ("0", "-1", "x"),
    "--workers": ("0", "-1", "x"),
    "--max-rejects": ("nan", "-1", "2", "inf", "x"),
    "--part": ("3/2", "0/2", "1", "-1/2", "x"),
    "--root": ("/dev/null", "nowhere", ""),
}

CONFIGURATIONS = {
    "a-list": b"[1]",
    "a-word": b"train",
    "undecodable": b"\xff\xfe",
    "not-yaml": b"train: [",
    "nested-too-deeply": b"[" * 50_000,
    "a-pickle": b"seed: !!python/object/apply:os.mkdir [executed]",
    "with-a-list-as-key": b"? [1]\n: 2",
    "with-a-number-as-key": b"1: 2",
    "with-a-word-for-a-group": b"train: fast",
    "with-a-list-for-a-group": b"train: [1, 2]",
    "with-an-unknown-group": b"color: {a: 1}",
    "with-an-unknown-key": b"train: {speed: 1}",
    "with-a-mapping-for-a-number": b"seed: {a: 1}",
    "with-a-list-for-a-number": b"seed: [1]",
    "with-a-date-for-a-number": b"seed: 2024-01-01",
    "with-a-huge-number": b"seed: 1" + b"0" * 5000,
    "with-zero-bytes": b"seed: \x00",
}


def command(kit: Kit, kind: str, option: str, value: object) -> Command:
    """It would write into a folder of its own in the room."""
    name = f"{option} {value!r}"
    out = kit.room / re.sub(r"[^\w.]", "-", name)[:80]
    if kind == "train":
        return kit.train(name, out, f"--{option}={value}")
    if kind == "evaluate":
        return kit.evaluate(name, out, "--cache", kit.cache, option, str(value))
    if kind == "show":
        return replace(kit.show(kit.pack, out.with_suffix(".png"), option, str(value)), name=name)
    packing = ("imagefolder", "--root", kit.tree, "--out", out, option, str(value))
    return kit.sharding(name, "pack", *packing)


def all_refused(commands: list[Command], kit: Kit, runner: Runner) -> None:
    found = []
    for outcome in runner.run(*commands):
        problems = outcome.breaches()
        if outcome.status != REFUSED and not problems:
            problems = [f"exit {outcome.status}"]
        found += [f"{outcome.command.name}: {problem}" for problem in problems]
    files = [path for path in kit.room.rglob("*") if path.is_file() and path.name != "lock"]
    found += [f"{path.relative_to(kit.room)} is written" for path in files]
    assert not found, "\n".join(found)


KINDS = [
    (kind, option, values)
    for kind, options in (
        ("train", TRAINING),
        ("evaluate", EVALUATION),
        ("show", SHOW),
        ("pack", PACKING),
    )
    for option, values in options.items()
]


@pytest.mark.parametrize("kind", ["train", "evaluate", "show", "pack"])
def test_options_have_values_that_are_refused(kind, kit, runner):
    options = [(option, values[0]) for name, option, values in KINDS if name == kind][::2]
    commands = [command(kit, kind, option, value) for option, value in options]
    all_refused(commands, kit, runner)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "option", "values"), KINDS)
def test_every_such_value_is_refused(kind, option, values, kit, runner):
    all_refused([command(kit, kind, option, value) for value in values], kit, runner)


@pytest.mark.parametrize("name", thinned(CONFIGURATIONS, 3))
def test_a_configuration_file_is_refused_that_is(name, kit, runner, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_bytes(CONFIGURATIONS[name])
    all_refused([kit.train("train", kit.room / "run", f"--config={file}")], kit, runner)


def test_an_empty_configuration_file_changes_nothing(kit, runner, tmp_path):
    (tmp_path / "empty.yaml").write_bytes(b"")
    (outcome,) = runner.run(
        kit.train("train", kit.room / "run", f"--config={tmp_path / 'empty.yaml'}")
    )
    assert not outcome.breaches()
    assert outcome.status in (GOOD, REFUSED)
