import hashlib
import os
import resource
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.cache import FeatureCache, FeatureKey
from evaluation.features import Features
from runtime.errors import ConfigError

KEY = FeatureKey("backbone", "pack", "index", "squash 48", "float32", rows=12, width=2)
ROWS = np.array([2, 5, 9])
FEATURES = torch.arange(6.0).view(3, 2)


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path / "cache", "backbone")
    cache.prepare()
    cache.store(KEY, Features(ROWS, FEATURES))
    return cache


@pytest.fixture
def file(cache, tmp_path):
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    return file


def test_stored_rows_are_found_and_others_are_not(cache):
    found = cache.load(KEY, np.array([1, 2, 9, 11]))
    assert found.rows.tolist() == [2, 9]
    assert torch.equal(found.values, FEATURES[[0, 2]])


def test_what_is_stored_later_joins_what_is_there(cache):
    cache.store(KEY, Features(np.array([5, 7]), torch.full((2, 2), 8.0)))
    found = cache.load(KEY, np.array([2, 5, 7, 9]))
    assert found.rows.tolist() == [2, 5, 7, 9]
    assert found.values[:, 0].tolist() == [0, 8, 8, 4]


@pytest.mark.parametrize("part", ["backbone", "pack", "index", "transform", "precision"])
def test_a_different_key_finds_nothing_and_says_nothing(cache, capsys, part):
    assert not len(cache.load(replace(KEY, **{part: "other"}), ROWS).rows)
    assert not capsys.readouterr().err


def change(metadata=None, signed=False, **tensors):
    """A file of correct form with other content, with its sha256 where it is ``signed``."""

    def alter(file):
        content = {**load_file(file), **tensors}
        digest = hashlib.sha256(KEY.text.encode())
        for name in ("rows", "features"):
            digest.update(content[name].numpy().tobytes())
        sha256 = digest.hexdigest() if signed else "0" * 64
        save_file(content, file, metadata or {"key": KEY.text, "sha256": sha256})

    return alter


def flip(position):
    def alter(file):
        content = bytearray(file.read_bytes())
        content[position] ^= 1
        file.write_bytes(content)

    return alter


def replace_with(make):
    def alter(file):
        file.unlink()
        make(file)

    return alter


def sparse(file):
    with file.open("r+b") as stream:
        stream.truncate(1 << 40)


ALTERATIONS = {
    "a flipped bit in a feature": flip(-1),
    "a flipped bit in a row": flip(-30),
    "a flipped bit in the header": flip(20),
    "shifted rows": change(rows=torch.tensor([3, 6, 10])),
    "other values": change(features=FEATURES + 1),
    "no metadata": change(metadata={"format": "pt"}),
    "a different key": change(metadata={"key": replace(KEY, pack="other").text}),
    "rows out of order": change(signed=True, rows=torch.tensor([5, 2, 9])),
    "a row twice": change(signed=True, rows=torch.tensor([2, 2, 9])),
    "a negative row": change(signed=True, rows=torch.tensor([-1, 2, 9])),
    "rows far apart": change(signed=True, rows=torch.tensor([-(2**62), 2**62, 2**62 + 1])),
    "a row beyond the pack": change(signed=True, rows=torch.tensor([2, 5, 12])),
    "rows of a different type": change(
        signed=True, rows=torch.tensor([2, 5, 9], dtype=torch.int32)
    ),
    "rows of a different shape": change(signed=True, rows=torch.tensor([[2, 5, 9]])),
    "features of a different type": change(signed=True, features=FEATURES.half()),
    "features of a different width": change(signed=True, features=torch.ones(3, 1)),
    "fewer features": change(signed=True, features=FEATURES[:2]),
    "features that are not finite": change(signed=True, features=FEATURES / 0),
    "a tensor too many": change(signed=True, other=torch.ones(1)),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-5]),
    "empty": lambda file: file.write_bytes(b""),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"more"),
    "a huge header": lambda file: file.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
    "text": lambda file: file.write_text("features"),
    "a terabyte of nothing": sparse,
    "a FIFO": replace_with(os.mkfifo),
    "a link to a device": replace_with(lambda file: file.symlink_to("/dev/zero")),
    "a link that leads nowhere to a file": replace_with(lambda file: file.symlink_to("/dev/null")),
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_an_altered_file_is_named_ignored_and_replaced(cache, file, capsys, alter):
    alter(file)
    assert not len(cache.load(KEY, ROWS).rows)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ignored: {file}: ")
    assert line.endswith("its features are recomputed")
    cache.store(KEY, Features(ROWS, FEATURES))
    assert torch.equal(cache.load(KEY, ROWS).values, FEATURES)
    assert not capsys.readouterr().err


def test_a_file_under_the_name_of_a_different_key_is_ignored(cache, file, capsys):
    other = replace(KEY, pack="other")
    file.rename(file.with_name(f"{other.sha256}.safetensors"))
    assert not len(cache.load(other, ROWS).rows)
    assert "it does not hold these features" in capsys.readouterr().err


def test_a_lock_that_is_a_fifo_stops_nobody(cache, file):
    lock = file.with_suffix(".lock")
    lock.unlink()
    os.mkfifo(lock)
    cache.store(KEY, Features(np.array([7]), torch.ones(1, 2)))
    assert cache.load(KEY, np.arange(12)).rows.tolist() == [2, 5, 7, 9]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_reported_in_advance(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--no-cache"):
        FeatureCache(tmp_path / folder, "backbone").prepare()


def test_two_that_store_at_the_same_time_lose_nothing(tmp_path):
    """In threads, which hold separate locks as processes do."""
    key = replace(KEY, rows=40)
    start = threading.Barrier(2)

    def store(first):
        cache = FeatureCache(tmp_path, "backbone")
        start.wait()
        for row in range(first, 40, 2):
            cache.store(key, Features(np.array([row]), torch.full((1, 2), float(row))))

    with ThreadPoolExecutor() as pool:
        list(pool.map(store, range(2)))
    found = FeatureCache(tmp_path, "backbone").load(key, np.arange(40))
    assert found.rows.tolist() == list(range(40))
    assert found.values[:, 0].tolist() == list(range(40))


def test_a_disk_that_is_full_keeps_what_was_stored(cache, file, capsys):
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        cache.store(KEY, Features(np.array([7]), torch.ones(1, 2)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: the features are not kept, cannot write {file}: ")
    assert file.read_bytes() == before
    assert [path.suffix for path in file.parent.iterdir() if path != file] == [".lock"]
