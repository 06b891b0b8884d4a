"""A pack opened for reading gives what was packed, or says in one line why it does not."""

import os
import shutil
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.pack import Pack
from pipelines.selection import indices_of
from runtime.errors import PackError


@pytest.fixture
def writable(pack_path, tmp_path):
    return shutil.copytree(pack_path, tmp_path / "pack")


def test_keys_sources_and_bytes_belong_together(pack_path, image_tree):
    pack, table = Pack(pack_path), pq.read_table(pack_path / "index.parquet")
    rows = np.array([59, 0, 17, 17])
    assert pack.keys(rows) == [table["key"][row].as_py() for row in rows.tolist()]
    sources = pack.sources(rows)
    assert sources == [table["source"][row].as_py() for row in rows.tolist()]
    pack.prefetch(rows)
    for source, image, row in zip(sources, pack.read(rows), rows, strict=True):
        assert image.tobytes() == (image_tree / source).read_bytes()
        assert zlib.crc32(image) == pack.index.crc32[row]


@pytest.mark.parametrize("name", ["manifest.json", "index.parquet", "shard-000001.tar"])
def test_a_pack_that_lacks_a_file_is_refused_when_it_is_opened(name, writable):
    (writable / name).unlink()
    with pytest.raises(PackError, match=name):
        Pack(writable)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["missing", "fifo", "link", "other-size"])
def test_a_shard_that_is_replaced_after_the_pack_was_opened_is_refused(kind, writable, tmp_path):
    pack, path = Pack(writable), writable / "shard-000000.tar"
    path.rename(tmp_path / "moved")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "moved")
    elif kind == "other-size":
        path.write_bytes(bytes(10240))
    with pytest.raises(PackError, match=r"shard-000000\.tar"):
        pack.read(np.array([0]))


def test_sources_of_an_index_that_is_replaced_after_the_pack_was_opened_are_refused(writable):
    pack = Pack(writable)
    (writable / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(PackError, match=r"index\.parquet is damaged"):
        pack.sources(np.array([0]))


def test_names_become_indices_and_unknown_names_are_listed():
    assert indices_of(("cat", "ant"), ("ant", "bee", "cat"), "class").tolist() == [2, 0]
    with pytest.raises(PackError, match="the pack has no class dog, eel; it has: ant, bee"):
        indices_of(("dog", "ant", "eel"), ("ant", "bee"), "class")
