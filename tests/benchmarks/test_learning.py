"""`python -m benchmarks.learning`, run small."""

import sys
import tarfile

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from benchmarks import learning


def test_a_split_uses_each_image_once_and_numbers_the_known_classes():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(16), 30))
    split = learning.split_classes(labels, seed=3)
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


def test_the_table_has_a_row_for_each_distance_and_features_are_kept(images, tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "REFERENCES", 2)
    monkeypatch.setattr(learning, "NEIGHBORS", 1)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_convnext", num_classes=0).state_dict(), weights)
    words = ["--images", images, "--weights", weights, "--backbone", "test_convnext"]
    words += ["--splits", "2", "--cache", tmp_path / "cache", "--out", tmp_path / "table.md"]
    monkeypatch.setattr(sys, "argv", ["learning", *map(str, words)])
    learning.main()
    table = (tmp_path / "table.md").read_text()
    assert "64 images of 16 classes, 2 random splits" in table
    for name in (*learning.DISTANCES, "mahalanobis, normalized"):
        assert f"| {name} | 0." in table
    images.unlink()  # the pack and the features are there
    learning.main()
    assert (tmp_path / "table.md").read_text() == table
