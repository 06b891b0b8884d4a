"""What several packages test with: a small image tree and its pack, and ranks that fail."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sharding.__main__ import main
from tests.common import ROOT

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


@pytest.fixture
def error_line(capsys):
    """Returns the one line, an error, that was written to standard error since the last call."""

    def line():
        (only,) = capsys.readouterr().err.splitlines()
        assert only.startswith("error: ")
        return only

    return line


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
