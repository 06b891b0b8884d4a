"""What several packages test with: a small image tree and its pack, and ranks that fail."""

import itertools
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from sharding.__main__ import main
from tests.commands import ENVIRONMENT, Command, Runner, running

os.environ["OMP_NUM_THREADS"] = "1"  # small tensors are slower on several threads
# Ignored by all commands where a shell starts the tests in the background
signal.signal(signal.SIGINT, signal.default_int_handler)

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
    names = itertools.product(("day", "dusk"), ("bee", "fly", "gnat"), range(4))
    for domain, class_, number in names:
        folder = root / domain / class_
        folder.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((60, 50)).save(folder / f"{number}.jpg")
    options = ["--name", "insects", "--shard-size", "20KB", "--workers", "1"]
    assert main(["pack", "imagefolder", "--root", str(root), "--out", str(out), *options]) == 0
    return out


@pytest.fixture
def error_line(capsys):
    """Returns the one line, an error, that was written to standard error since the last call."""

    def line():
        (only,) = capsys.readouterr().err.splitlines()
        assert only.startswith("error: ")
        return only

    return line


@pytest.fixture(scope="session")
def runner(tmp_path_factory) -> Iterator[Runner]:
    with running(tmp_path_factory.mktemp("runner"), **ENVIRONMENT) as started:
        yield started


@pytest.fixture
def store():
    """A store at a port of its own, as torchrun has one; what joins it names its ``port``."""
    from torch.distributed import TCPStore

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def fail_on_rank_1(runner, store, tmp_path):
    """Runs a command as two gloo ranks, rank 1 after ``sabotage``, a piece of Python that may
    change ``arguments``; returns each rank's (exit status, standard error) once both have ended.

    Destroying the process group blocks, as NCCL's does where one rank alone arrives there.
    """

    def run(sabotage, command, *arguments):
        started = []
        for rank in range(2):
            environment = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "WORLD_SIZE": "2",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            }
            words = [sabotage, command, *map(str, arguments)]
            name = f"rank {rank}"
            started.append(
                runner.start(Command(name, "tests.ranks", words, tmp_path, environment=environment))
            )
        return [(outcome.status, outcome.stderr) for outcome in (each.wait() for each in started)]

    return run
