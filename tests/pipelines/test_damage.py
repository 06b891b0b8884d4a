"""Samples that are not what was packed, or that cannot be decoded."""

import dataclasses
import io
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.damage import undecodable
from pipelines.graph import graph_inputs
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from runtime.errors import PackError
from tests.pipelines.loading import decoding, group_loader, pair_loader, taken


@pytest.fixture
def pack(pack_path, tmp_path):
    return Pack(shutil.copytree(pack_path, tmp_path / "pack"))


def overwrite(pack, row, content, *, checksum=False):
    """Put ``content`` over the start of a sample's image in its shard, and zeros after it; with
    ``checksum`` the index, as it is in memory, has the checksum of the result."""
    size = int(pack.index.size[row])
    assert len(content) <= size
    content = content.ljust(size, b"\0")
    with (pack.path / pack.manifest.shards[pack.index.shard[row]].name).open("r+b") as file:
        file.seek(int(pack.index.offset[row]))
        file.write(content)
    if checksum:
        sums = pack.index.crc32.copy()
        sums[row] = zlib.crc32(content)
        pack.index = dataclasses.replace(pack.index, crc32=sums)


def encoded(pack, row):
    return pack.read(np.array([row]))[0].tobytes()


def headers_alone(pack, row):
    """A JPEG up to its frame header, which states the right size, and nothing to decode."""
    content = encoded(pack, row)
    return content[: content.index(b"\xff\xc0") + 19]


def without_end(pack, row):
    """A PNG of the right size whose last chunk is missing and whose pixels are cut."""
    buffer = io.BytesIO()
    size = int(pack.index.width[row]), int(pack.index.height[row])
    Image.new("L", size).save(buffer, "PNG")
    return buffer.getvalue()[:-20]


def other_size(pack, row):
    """A sound JPEG of 8 x 8 pixels."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def nothing(pack, row):
    return b"no image"


DAMAGE = [headers_alone, without_end, other_size, nothing]


@pytest.mark.parametrize("checksum", [False, True], ids=["checksum-wrong", "checksum-right"])
@pytest.mark.parametrize("check_crc", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
def test_training_replaces_a_damaged_sample_by_one_of_its_class(
    pack, damage, check_crc, checksum, caplog
):
    sound = taken(pair_loader(pack), 6)
    row = int(sound[3][1][5])
    overwrite(pack, row, damage(pack, row), checksum=checksum)
    loader = pair_loader(pack, check_crc=check_crc)
    shown = taken(loader, 6)
    assert loader.num_damaged == 1
    for (_, before, _), (_, after, images) in zip(sound, shown):
        hit = before == row
        assert row not in after
        assert (before[~hit] == after[~hit]).all()
        assert (pack.index.label[before] == pack.index.label[after]).all()
        assert torch.isfinite(images).all()
    assert pack.keys(np.array([row]))[0] in caplog.text


def test_a_damaged_image_of_a_group_is_replaced_for_all_of_its_pairs(pack):
    sound = taken(group_loader(pack), 4)
    row = int(sound[1][1][5])
    overwrite(pack, row, headers_alone(pack, row), checksum=True)
    loader = group_loader(pack)
    for (_, before, _), (_, after, _) in zip(sound, taken(loader, 4)):
        hit = before == row
        assert row not in after
        assert (before[~hit] == after[~hit]).all()
        assert (pack.index.label[before] == pack.index.label[after]).all()
    assert loader.num_damaged == 1


def test_all_of_several_undecodable_samples_are_replaced(pack):
    sound = taken(pair_loader(pack), 4)
    rows = sorted({int(sound[1][1][0]), int(sound[1][1][1]), int(sound[3][1][7])})
    for row in rows:
        overwrite(pack, row, headers_alone(pack, row), checksum=True)
    loader = pair_loader(pack)
    shown = np.concatenate([rows for _, rows, _ in taken(loader, 4)])
    assert not np.isin(shown, rows).any()
    assert loader.num_damaged == len(rows)


def test_training_gives_up_when_more_is_damaged_than_is_tolerated(pack):
    for row in range(3):
        overwrite(pack, row, b"no image")
    with pytest.raises(PackError, match="more than 2 samples"):
        taken(pair_loader(pack, max_damaged=2), 20)


def test_a_class_without_readable_images_is_named(pack):
    for row in np.flatnonzero(pack.index.label == 1):
        overwrite(pack, row, b"no image")
    with pytest.raises(PackError, match=f"class {pack.manifest.classes[1]} .* no readable"):
        taken(pair_loader(pack), 5)


@pytest.mark.parametrize("checksum", [False, True], ids=["checksum-wrong", "checksum-right"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_evaluation_refuses_a_damaged_sample_by_name(pack, damage, checksum):
    row = 17
    overwrite(pack, row, damage(pack, row), checksum=checksum)
    (key,) = pack.keys(np.array([row]))
    with pytest.raises(PackError, match=f"sample {key} "):
        list(ImageLoader(pack, np.arange(len(pack.index)), decoding(), batch_size=4))


def test_evaluation_refuses_a_sample_whose_damage_decodes(pack):
    """One flipped bit among the pixels, which only the checksum shows."""
    row = 17
    content = bytearray(encoded(pack, row))
    content[len(content) // 2] ^= 1
    with Image.open(io.BytesIO(content)) as image:
        image.load()
    overwrite(pack, row, bytes(content))
    loader = ImageLoader(pack, np.array([row]), decoding(check_crc=False), batch_size=1)
    with pytest.raises(PackError, match="is damaged"):
        list(loader)


def test_each_undecodable_image_is_found(pack):
    images = [np.frombuffer(encoded(pack, row), dtype=np.uint8) for row in range(5)]
    for row in (1, 2, 4):
        images[row] = np.frombuffer(headers_alone(pack, row), dtype=np.uint8)
    assert undecodable(images, decoding().config, 0) == [1, 2, 4]


def test_a_failure_that_no_sample_explains_is_not_hidden(pack, monkeypatch):
    def beyond_the_images(images, augmentation):
        inputs = graph_inputs(images, augmentation)
        return inputs._replace(end=inputs.end + 1000)

    monkeypatch.setattr("pipelines.source.graph_inputs", beyond_the_images)
    loader = pair_loader(pack)
    with pytest.raises(RuntimeError):
        next(loader)
    assert loader.num_damaged == 0
