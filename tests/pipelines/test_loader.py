import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import Preprocessing
from pipelines.config import Decoding, InputConfig
from pipelines.graph import image_pipeline
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from runtime.errors import ConfigError, PackError
from tests.pipelines.loading import decoding, group_loader, pair_loader, taken


@pytest.fixture
def pack(pack_path):
    return Pack(pack_path)


def test_a_batch_holds_what_its_rows_say(pack):
    batch = next(pair_loader(pack))
    names = pack.manifest.classes
    labels = pack.index.label[batch.rows]
    assert batch.images.shape == (24, 3, 32, 32)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert (batch.labels.numpy() == labels).all()
    assert (batch.different.numpy() == (labels[:12] != labels[12:])).all()
    assert all(names[label] in source for label, source in zip(labels, pack.sources(batch.rows)))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_the_one_sequence(pack, world_size):
    whole = taken(pair_loader(pack), 3)
    ranks = [taken(pair_loader(pack, rank, world_size), 3) for rank in range(world_size)]
    for step, (number, rows, images) in enumerate(whole):
        assert all(rank[step][0] == number for rank in ranks)
        for side in range(2):
            parts = [np.split(rank[step][1], 2)[side] for rank in ranks]
            assert (np.concatenate(parts) == np.split(rows, 2)[side]).all()
            pixels = torch.cat([rank[step][2].chunk(2)[side] for rank in ranks])
            assert torch.equal(pixels, images.chunk(2)[side])


def test_starting_at_a_step_continues_the_sequence(pack):
    whole = taken(pair_loader(pack), 6)
    for (step, rows, images), (other_step, other_rows, other_images) in zip(
        whole[4:], taken(pair_loader(pack, start_step=4), 2), strict=False
    ):
        assert step == other_step
        assert (rows == other_rows).all()
        assert torch.equal(images, other_images)


def test_a_batch_of_groups_decodes_each_image_once(pack):
    batch = next(group_loader(pack))
    assert len(batch.images) == len(batch.labels) == len(batch.rows) == 4 * 3 * 3
    assert len(batch.left) == len(batch.right) == len(batch.different) == 4 * 3 * 3 * 3
    labels = pack.index.label[batch.rows]
    assert (batch.labels.numpy() == labels).all()
    assert (batch.different.numpy() == (labels[batch.left] != labels[batch.right])).all()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_groups_of_a_step(pack, world_size):
    whole = taken(group_loader(pack), 3)
    ranks = [taken(group_loader(pack, rank, world_size), 3) for rank in range(world_size)]
    for step, (_, rows, images) in enumerate(whole):
        assert (np.concatenate([rank[step][1] for rank in ranks]) == rows).all()
        assert torch.equal(torch.cat([rank[step][2] for rank in ranks]), images)


def test_evaluation_gives_each_image_once_in_order(pack):
    rows = np.arange(len(pack.index))[::-1].copy()
    loader = ImageLoader(pack, rows, decoding(), batch_size=7)
    batches = [(batch.rows, batch.images) for batch in loader]
    assert len(batches) == len(loader)
    assert (np.concatenate([rows for rows, _ in batches]) == rows).all()
    assert sum(len(images) for _, images in batches) == len(rows)
    one_by_one = [batch.images for batch in ImageLoader(pack, rows, decoding(), batch_size=1)]
    assert torch.equal(torch.cat([images for _, images in batches]), torch.cat(one_by_one))


def test_reading_gives_the_source_files_bytes(pack, image_tree):
    rows = np.arange(len(pack.index))
    for source, data in zip(pack.sources(rows), pack.read(rows)):
        assert data.tobytes() == (image_tree / source).read_bytes()


def test_a_batch_that_cannot_be_shared_is_refused(pack):
    with pytest.raises(ConfigError, match="multiple of 5"):
        pair_loader(pack, 0, 5)


def test_a_shard_of_another_size_is_refused(pack_path, tmp_path):
    path = shutil.copytree(pack_path, tmp_path / "pack")
    shard = path / Pack(path).manifest.shards[0].name
    shard.write_bytes(shard.read_bytes()[:-1024])
    with pytest.raises(PackError, match="verify"):
        Pack(path).read(np.array([0]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    images = Decoding(Preprocessing(), InputConfig(device="gpu"))
    with pytest.raises(ConfigError, match="device gpu was requested"):
        image_pipeline(lambda _info: None, images, batch_size=1)


def test_pillow_reads_what_the_loader_reads(pack):
    """The evaluation's image is Pillow's squashed resize of the same bytes."""
    (data,) = pack.read(np.array([3]))
    (batch,) = ImageLoader(pack, np.array([3]), decoding(), batch_size=4)
    image = Image.open(io.BytesIO(data.tobytes())).resize((32, 32), Image.Resampling.BILINEAR)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(np.array(image)) / 255 - mean) / std
    difference = (batch.images[0].permute(1, 2, 0) - expected) * std * 255
    assert float(difference.abs().mean()) < 0.5
