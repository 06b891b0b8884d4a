"""A pack that a test may alter."""

import shutil

import pytest


@pytest.fixture
def pack(pack_path, tmp_path):
    return shutil.copytree(pack_path, tmp_path / "pack")
