"""`python -m benchmarks.learning`, run small."""

import tarfile

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from benchmarks.learning import experiments, report, scoring, splits
from benchmarks.learning.__main__ import main
from benchmarks.learning.experiments import WAYS
from benchmarks.learning.report import MARK
from benchmarks.learning.variants import ON_FROZEN


def test_a_split_uses_each_image_once_and_numbers_the_known_classes():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(16), 30))
    split = splits.split_classes(labels, seed=3)
    tests = np.concatenate((split.known, split.unknown))
    rows = np.concatenate((split.training, split.reference, tests))
    assert sorted(rows) == list(range(len(labels)))
    assert np.bincount(split.reference_class).tolist() == [20, 20]
    classes = [set(labels[part]) for part in (split.training, split.reference, split.unknown)]
    assert [len(part) for part in classes] == [12, 2, 2]
    assert set(labels[split.known]) == classes[1]
    for number in range(2):
        assert len(set(labels[split.reference[split.reference_class == number]])) == 1


@pytest.fixture
def images(tmp_path):
    """A tar of 16 classes of 4 images."""
    rng = np.random.default_rng(0)
    for number in range(16):
        folder = tmp_path / "tree" / f"class{number}"
        folder.mkdir(parents=True)
        for image in range(4):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "tree", "tree")
    return tmp_path / "images.tar"


@pytest.fixture
def command(images, tmp_path, monkeypatch):
    """Runs the command small, into ``table.md``."""
    monkeypatch.setattr(splits, "REFERENCES", 2)
    monkeypatch.setattr(scoring, "NEIGHBORS", 1)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_convnext", num_classes=0).state_dict(), weights)
    words = ["--images", images, "--weights", weights, "--backbone", "test_convnext"]
    words += ["--splits", 2, "--steps", 2, "--classes", 4, "--cache", tmp_path / "cache"]
    words += ["--fine-tuning-splits", 2, "--fine-tuning-steps", 1, "--image-size", 32]
    words += ["--out", tmp_path / "table.md"]

    def run(*more):
        assert main([str(word) for word in (*words, *more)]) == 0
        return (tmp_path / "table.md").read_text()

    return run


def test_the_command_writes_a_row_for_each_distance_and_training_and_keeps_features_and_prose(
    command, images, tmp_path, monkeypatch
):
    first = command()
    assert "64 images of 16 classes" in first
    for name in scoring.DISTANCES:
        assert first.count(f"| {name} | 0.") == 2  # of the frozen and of the fine-tuned backbone
    for variant in ON_FROZEN:
        assert f"| {variant.name} | " in first
    (logit,) = [line for line in first.splitlines() if line.startswith("| relation-logit |")]
    assert logit.count("±") == len(WAYS)
    (tmp_path / "table.md").write_text(f"# Mine\n\n{MARK}\n\nold")
    images.unlink()  # the pack and the features are there
    for module in (experiments, report):
        monkeypatch.setattr(module, "ON_FROZEN", ON_FROZEN[:1])
    second = command("--fine-tuning-splits", 0)
    assert second.startswith("# Mine\n\n<!--")
    assert "old" not in second
    assert second.split("### ")[1] == first.split("### ")[1]  # the distances


def test_choosing_uses_no_test_of_the_split_that_is_not_among_its_training_classes():
    labels = np.repeat(np.arange(32), 30)
    outer = splits.split_classes(labels, splits.CHOICE_SEED)
    for split in splits.splits(labels, 3, choosing=True):
        used = np.concatenate((split.training, split.evaluated))
        assert sorted(used) == outer.training.tolist()
