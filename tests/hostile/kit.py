"""What is altered, made once by the real commands, and the commands that read it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image
from safetensors.numpy import load_file

from tests.commands import Command, Runner

DOMAINS, CLASSES, IMAGES = ("day", "night"), ("ant", "bee", "cat", "dog"), 5
STEPS = 2
CONFIG = {
    "input": {"image_size": 32, "num_threads": 1, "device": "cpu"},
    "data": {"num_negatives": 1},
    "model": {"backbone": "test_convnext3", "embed_dim": 16, "depth": 1, "num_heads": 2},
    "objective": {"name": "bce"},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "schedule": {"name": "constant", "warmup": 0},
    "train": {"iterations": STEPS, "global_batch": 40},  # both steps together see every image
    "checkpoint": {"every": 1},
    "log": {"every": 1, "tensorboard": False},
}
SCORES_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Kit:
    """A folder with a tree, its pack, a run of ``STEPS`` steps on it and one a step longer, a
    protocol, a cache of features, and the results of the protocol.

    Attributes:
        room: where commands are run.
    """

    folder: Path
    room: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def pack(self) -> Path:
        return self.folder / "pack"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def longer_run(self) -> Path:
        return self.folder / "longer-run"

    @property
    def protocol(self) -> Path:
        return self.folder / "protocol.yaml"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def sharding(self, name: str, *arguments: str | Path) -> Command:
        return Command(name, "sharding.__main__", arguments, self.room)

    def show(self, pack: Path, out: Path, *options: str) -> Command:
        arguments = ["show", pack, "--out", out, "--pairs", "4", "--image-size", "32", *options]
        return Command("show", "pipelines.__main__", arguments, self.room)

    def train(self, name: str, out: Path, *options: str) -> Command:
        arguments = ["--config", self.folder / "train.yaml", "--out", out, *options]
        return Command(name, "train_ddp", arguments, self.room)

    def evaluate(self, name: str, out: Path, *options: str | Path) -> Command:
        """Results go to ``out/results`` and features to ``out/cache``."""
        arguments = [
            *("--protocol", self.protocol, "--pack", self.pack, "--checkpoint", self.run),
            *("--out", out / "results", "--cache", out / "cache", "--device", "cpu"),
        ]
        return Command(name, "evaluate", _replaced(arguments, options), self.folder)


def make_kit(folder: Path, runner: Runner, classes: tuple[str, ...] = CLASSES) -> Kit:
    """All but the first class of the pack are known."""
    kit = Kit(folder, folder)
    draw_tree(kit.tree, classes)
    (folder / "train.yaml").write_text(
        yaml.safe_dump({**CONFIG, "data": {**CONFIG["data"], "pack": str(kit.pack)}})
    )
    packing = ("pack", "imagefolder", "--root", kit.tree, "--out", kit.pack)
    succeed(runner, kit.sharding("pack", *packing, "--shard-size", "40KB", "--workers", "1"))
    _, *known = json.loads((kit.pack / "manifest.json").read_text("utf-8"))["classes"]
    kit.protocol.write_text(yaml.safe_dump(protocol(known), allow_unicode=True), "utf-8")
    succeed(
        runner,
        kit.train("train", kit.run),
        kit.train("train longer", kit.longer_run, f"--train.iterations={STEPS + 1}"),
    )
    succeed(runner, kit.evaluate("evaluate", folder))
    return kit


def draw_tree(tree: Path, classes: tuple[str, ...]) -> None:
    """``<domain>/<class>/<image>``, of varied sizes; the last image of a class is a PNG."""
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for class_ in classes:
            folder = tree / domain / class_
            folder.mkdir(parents=True)
            for number in range(IMAGES):
                size = tuple(rng.integers(40, 90, 2).tolist())
                coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
                suffix = "png" if number == IMAGES - 1 else "jpg"
                Image.fromarray(coarse).resize(size).save(folder / f"{number}.{suffix}")


def protocol(known: list[str]) -> dict:
    targets = {
        target: {
            "reference": [{"domains": [other], "classes": known}],
            "test": [{"domains": [target]}],
        }
        for target, other in (DOMAINS, DOMAINS[::-1])
    }
    return {"name": "animals", "dataset": "imagefolder", "known": known, "targets": targets}


def succeed(runner: Runner, *commands: Command) -> None:
    for outcome in runner.run(*commands):
        assert (outcome.status, outcome.breaches()) == (0, []), outcome


def scores(results: Path) -> np.ndarray:
    """Each evaluator's score of each test image, ordered by target and key."""
    table = pq.read_table(results / "scores.parquet").sort_by(
        [("target", "ascending"), ("key", "ascending")]
    )
    names = [name for name in table.column_names if name.endswith(".normality")]
    return np.stack([table.column(name).to_numpy() for name in names])


def same_scores(results: Path, expected: Path) -> bool:
    ours, theirs = scores(results), scores(expected)
    return ours.shape == theirs.shape and np.allclose(ours, theirs, atol=SCORES_TOLERANCE)


def same_weights(run: Path, expected: Path) -> bool:
    ours, theirs = (
        load_file(newest_step(path) / "weights.safetensors") for path in (run, expected)
    )
    return ours.keys() == theirs.keys() and all(
        np.allclose(ours[name], theirs[name], atol=1e-5) for name in ours
    )


def newest_step(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-????????"))


def _replaced(arguments: list[str | Path], options: tuple[str | Path, ...]) -> list[str | Path]:
    """The ``arguments`` with the values of ``options``, pairs of a name and a value."""
    arguments = list(arguments)
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    return arguments
