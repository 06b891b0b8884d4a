from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.cache import FeatureCache, FeatureKey
from runtime.errors import ConfigError

KEY = FeatureKey("backbone", "pack", "squash 48", "float32")
ROWS = np.array([2, 5, 9])
FEATURES = torch.arange(6.0).view(3, 2)


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    cache.store(KEY, ROWS, FEATURES)
    return cache


def test_stored_rows_are_found_and_others_are_not(cache):
    found, features = cache.load(KEY, np.array([1, 2, 9, 11]))
    assert found.tolist() == [False, True, True, False]
    assert torch.equal(features, FEATURES[[0, 2]])


def test_what_is_stored_later_joins_what_is_there(cache):
    cache.store(KEY, np.array([5, 7]), torch.full((2, 2), 8.0))
    found, features = cache.load(KEY, np.array([2, 5, 7, 9]))
    assert found.all()
    assert features[:, 0].tolist() == [0, 8, 8, 4]


@pytest.mark.parametrize("part", ["backbone", "pack", "transform", "precision"])
def test_another_key_finds_nothing(cache, part):
    found, features = cache.load(replace(KEY, **{part: "other"}), ROWS)
    assert not found.any()
    assert len(features) == 0


def test_a_file_under_the_name_of_another_key_is_not_believed(cache, tmp_path):
    other = replace(KEY, pack="other")
    (file,) = (tmp_path / "cache").iterdir()
    file.rename(file.with_name(f"{other.sha256}.safetensors"))
    assert not cache.load(other, ROWS)[0].any()


def test_a_truncated_file_counts_as_absent_and_is_replaced(cache, tmp_path):
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert not cache.load(KEY, ROWS)[0].any()
    cache.store(KEY, ROWS, FEATURES)
    assert cache.load(KEY, ROWS)[0].all()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--no-cache"):
        FeatureCache(tmp_path / "file").store(KEY, ROWS, FEATURES)
