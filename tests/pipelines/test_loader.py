import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.config import AugmentConfig, InputConfig
from pipelines.loader import ImageLoader, PairLoader
from pipelines.pack import Pack
from pipelines.plan import PairPlan
from pipelines.selection import Selection
from runtime.errors import PackError

CONFIG = InputConfig(device="cpu", image_size=32, num_threads=1)


@pytest.fixture
def pack(pack_path):
    return Pack(pack_path)


@pytest.fixture
def writable_pack(pack_path, tmp_path):
    return Pack(shutil.copytree(pack_path, tmp_path / "pack"))


def pair_loader(pack, **options):
    rows = Selection().rows(pack)
    plan = PairPlan(pack.index.label[rows], seed=4, num_negatives=3)
    options = {"global_batch": 12, "config": CONFIG} | options
    config = options.pop("config")
    return PairLoader(pack, rows, plan, AugmentConfig(), config, **options)


def taken(loader, count):
    return [
        (batch.step, batch.rows, batch.images.clone()) for batch, _ in zip(loader, range(count))
    ]


def overwrite(pack, row, content):
    """Write ``content`` over the first bytes of a sample's image in its shard."""
    shard = pack.path / pack.manifest.shards[pack.index.shard[row]].name
    with shard.open("r+b") as file:
        file.seek(int(pack.index.offset[row]))
        file.write(content)


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
    ranks = [
        taken(pair_loader(pack, rank=rank, world_size=world_size), 3) for rank in range(world_size)
    ]
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


def test_evaluation_gives_each_image_once_in_order(pack):
    rows = np.arange(len(pack.index))[::-1].copy()
    loader = ImageLoader(pack, rows, CONFIG, batch_size=7)
    batches = [(batch.rows, batch.images.clone()) for batch in loader]
    assert len(batches) == len(loader)
    assert (np.concatenate([rows for rows, _ in batches]) == rows).all()
    assert sum(len(images) for _, images in batches) == len(rows)
    one_by_one = [batch.images.clone() for batch in ImageLoader(pack, rows, CONFIG, batch_size=1)]
    assert torch.equal(torch.cat([images for _, images in batches]), torch.cat(one_by_one))


def test_reading_gives_the_source_files_bytes(pack, image_tree):
    rows = np.arange(len(pack.index))
    for source, data in zip(pack.sources(rows), pack.read(rows)):
        assert data.tobytes() == (image_tree / source).read_bytes()


@pytest.mark.parametrize("check_crc", [True, False])
def test_training_replaces_a_damaged_sample_by_one_of_its_class(writable_pack, caplog, check_crc):
    """Without checksums a sample is caught by its first bytes, or once DALI failed to decode it."""
    pack = writable_pack
    sound = taken(pair_loader(pack), 8)
    row = int(sound[3][1][5])
    size = int(pack.index.size[row])
    overwrite(pack, row, pack.read(np.array([row]))[0][:20].tobytes() + bytes(size - 20))
    overwrite(pack, int(sound[5][1][0]), b"no image")
    config = InputConfig(device="cpu", image_size=32, num_threads=1, check_crc=check_crc)
    loader = pair_loader(pack, config=config)
    mended = taken(loader, 8)
    damaged = {row, int(sound[5][1][0])}
    assert loader.num_damaged == 2
    for (_, before, _), (_, after, images) in zip(sound, mended):
        hit = np.isin(before, list(damaged))
        assert not np.isin(after, list(damaged)).any()
        assert (before[~hit] == after[~hit]).all()
        assert (pack.index.label[before] == pack.index.label[after]).all()
        assert torch.isfinite(images).all()
    for key in pack.keys(np.array(sorted(damaged))):
        assert key in caplog.text


def test_training_gives_up_when_more_is_damaged_than_is_put_up_with(writable_pack):
    for row in range(3):
        overwrite(writable_pack, row, b"no image")
    config = InputConfig(device="cpu", image_size=32, num_threads=1, max_damaged=2)
    loader = pair_loader(writable_pack, config=config)
    with pytest.raises(PackError, match="more than 2 samples"):
        taken(loader, 20)


@pytest.mark.parametrize("damage", [b"no image", None], ids=["first-bytes", "undecodable"])
def test_evaluation_refuses_a_damaged_sample_by_name(writable_pack, damage):
    row = 17
    content = damage or b"\xff\xd8\xff" + bytes(int(writable_pack.index.size[row]) - 3)
    overwrite(writable_pack, row, content)
    (key,) = writable_pack.keys(np.array([row]))
    rows = np.arange(len(writable_pack.index))
    with pytest.raises(PackError, match=key):
        list(ImageLoader(writable_pack, rows, CONFIG, batch_size=4))


def test_a_batch_that_cannot_be_shared_is_refused(pack):
    with pytest.raises(PackError, match="multiple of 5"):
        pair_loader(pack, world_size=5)


def test_a_shard_of_another_size_is_refused(writable_pack):
    shard = writable_pack.path / writable_pack.manifest.shards[0].name
    shard.write_bytes(shard.read_bytes()[:-1024])
    with pytest.raises(PackError, match="verify"):
        Pack(writable_pack.path).read(np.array([0]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(PackError, match="no GPU"):
        _ = InputConfig(device="gpu").resolved_device


def test_pillow_reads_what_the_loader_reads(pack):
    """The evaluation's image is Pillow's squashed resize of the same bytes."""
    (data,) = pack.read(np.array([3]))
    (batch,) = ImageLoader(pack, np.array([3]), CONFIG, batch_size=4)
    image = Image.open(io.BytesIO(data.tobytes())).resize((32, 32), Image.Resampling.BILINEAR)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(np.array(image)) / 255 - mean) / std
    difference = (batch.images[0].permute(1, 2, 0) - expected) * std * 255
    assert float(difference.abs().mean()) < 0.5
