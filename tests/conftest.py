"""A small image tree and its pack, made once with the real command."""

import numpy as np
import pytest
from PIL import Image

from sharding.__main__ import main

DOMAINS, CLASSES, IMAGES = ("day", "night"), ("ant", "bee", "cat", "dog", "eel"), 6


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory):
    """``<domain>/<class>/<image>.jpg``: 2 domains, 5 classes, 6 images of varied sizes."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for class_ in CLASSES:
            folder = root / domain / class_
            folder.mkdir(parents=True)
            for number in range(IMAGES):
                width, height = rng.integers(40, 120, 2)
                coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((int(width), int(height)))
                image.save(folder / f"{number}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def pack_path(image_tree, tmp_path_factory):
    """The packed ``image_tree``, in several shards; not to be changed by a test."""
    path = tmp_path_factory.mktemp("packs") / "pack"
    options = ["--shard-size", "40KB", "--workers", "2"]
    status = main(["pack", "imagefolder", "--root", str(image_tree), "--out", str(path), *options])
    assert status == 0
    return path
