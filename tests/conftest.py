"""What several packages test with: a small image tree and its pack, and ranks that fail."""

import dataclasses
import itertools
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharding.__main__ import main
from sharding.executors import run_local
from sharding.packing import pack
from sharding.shard_plan import PackOptions
from sharding.sources.tree import imagefolder

ROOT = Path(__file__).parent.parent
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


@pytest.fixture(scope="session")
def insects_path(tmp_path_factory):
    """A second pack, of the data set ``insects``: 2 domains, of which ``day`` is in both packs, 3
    classes, of which ``bee`` is, and 4 images of each; not to be changed by a test."""
    root, out = tmp_path_factory.mktemp("insects"), tmp_path_factory.mktemp("packs") / "insects"
    rng = np.random.default_rng(1)
    for domain, class_, number in itertools.product(
        ("day", "dusk"), ("bee", "fly", "gnat"), "0123"
    ):
        folder = root / domain / class_
        folder.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((60, 50)).save(folder / f"{number}.jpg")
    dataset = dataclasses.replace(imagefolder(root), name="insects")
    pack(dataset, out, PackOptions(shard_size=20_000), partial(run_local, workers=1))
    return out


_RANK = """
import importlib, os, sys, time
import torch.distributed
torch.distributed.destroy_process_group = lambda: time.sleep(600)  # NCCL's may wait like this
sabotage, command, *arguments = sys.argv[1:]
if os.environ["RANK"] == "1":
    exec(sabotage)
sys.exit(importlib.import_module(command).main(arguments))
"""


@pytest.fixture
def fail_on_rank_1():
    """Runs a command as two gloo ranks, rank 1 after ``sabotage``, a piece of Python that may
    change ``arguments``; returns each rank's (exit status, standard error) once both have ended.

    Destroying the process group blocks, as NCCL's does where one rank alone arrives there.
    """
    started = []

    def run(sabotage, command, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(2):
            environment = os.environ | {
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": "2",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            }
            words = [sys.executable, "-c", _RANK, sabotage, command, *map(str, arguments)]
            pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            started.append(subprocess.Popen(words, env=environment, text=True, **pipes))
        errors = [process.communicate(timeout=200)[1] for process in started]
        return [(process.returncode, error) for process, error in zip(started, errors)]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
