"""Each shipped configuration runs as documented, on a small imitation of its published tree.

All happens in one folder with `packs/` and `runs/`, so that the configurations' own paths hold. The
networks and images are tiny; everything else is the configuration's.
"""

import json
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from published_trees import MAKERS

import evaluate
import train_ddp
from runtime.checkpoint import newest
from sharding.__main__ import main as sharding
from sharding.sources import characters
from tests.common import ROOT

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
PROTOCOLS = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))
TINY = (
    *("--model.backbone=test_resnet", "--model.pretrained=false", "--model.embed_dim=12"),
    *("--model.depth=1", "--model.num_heads=2", "--input.image_size=32", "--input.device=cpu"),
    *("--input.num_threads=2", "--train.iterations=2", "--train.global_batch=16"),
    *("--train.recipe_ranks=1", "--log.tensorboard=false"),
    *("--data.sampling.groups=1", "--data.sampling.classes=4"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Makes an image file: a link to one of a few small JPEGs."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    files = []
    for number in range(7):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).resize((36 + number, 34)).save(files[-1], quality=60)
    following = cycle(files)
    return lambda path: path.hardlink_to(next(following))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The folder in which the documented commands are run."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Enough of the demo for groups of training classes, references and tests.
        patch.setattr(characters, "HELD_OUT_SAMPLES", 2)
        patch.setattr(characters, "NUM_REFERENCES", 1)
        every = characters.listing
        first = characters.NUM_TRAINING_CLASSES - 40
        patch.setattr(
            characters, "listing", lambda: (s for s in every() if s.class_number >= first)
        )
        yield folder


@pytest.fixture(scope="module")
def pack(workspace, place):
    """Makes the pack of a data set, in `packs/`, once."""

    @cache
    def make(dataset):
        out = f"packs/{dataset}"
        if dataset == "demo":
            command = ["demo"]
        else:
            assert dataset in MAKERS, f"add an imitation of the tree of {dataset} to MAKERS"
            root = workspace / "trees" / dataset
            MAKERS[dataset](root, place, 3)
            command = ["pack", dataset, "--root", str(root)]
        assert sharding([*command, "--out", out, "--workers", "2"]) == 0
        return out

    return make


@pytest.fixture(scope="module")
def train(workspace, pack):
    """Trains a recipe for two steps, after the one at whose weights it starts; gives its run."""

    @cache
    def run(recipe):
        config = yaml.safe_load(recipe.read_text())
        pack(Path(config["data"]["pack"]).name)
        start = config["model"].get("backbone_weights")
        for other in RECIPES:
            if yaml.safe_load(other.read_text())["out"] == start:
                run(other)
        assert train_ddp.main(["--config", f"configs/{recipe.name}", *TINY]) == 0
        return workspace / config["out"]

    return run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains(recipe, train):
    assert newest(train(recipe)).step == 2


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda path: path.stem)
def test_a_protocol_is_evaluated(protocol, train, pack, workspace, error_line):
    content = yaml.safe_load(protocol.read_text())
    run = train(ROOT / "configs" / "imagenet.yaml").relative_to(workspace)
    command = [
        "--protocol",
        f"configs/benchmarks/{protocol.name}",
        "--pack",
        pack(content["dataset"]),
    ]
    command += ["--checkpoint", str(run), "--target", "all", "--out", f"runs/{protocol.stem}"]
    status = evaluate.main([*command, *("--device", "cpu"), *("--resamples", "10")])
    if not all(target["reference"] for target in content["targets"].values()):
        assert status == 2
        assert "the protocol names no references; add yours" in error_line()
        return
    assert status == 0
    results = json.loads((workspace / "runs" / protocol.stem / "results.json").read_text())
    (benchmark,) = results["benchmarks"]
    assert [target["name"] for target in benchmark["targets"]] == list(content["targets"])
