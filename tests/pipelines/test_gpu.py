"""What only a GPU can show of the input: run with `pytest -m gpu`."""

from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.correctness import (
    Differences,
    compare_pixels,
    compare_while_busy,
    damage_pack,
    encodings,
    survive_damage,
)
from benchmarks.gpu.node import GPU_SIZE, Node
from benchmarks.gpu.packs import ORIGINAL, PROGRESSIVE, draw_pack
from model.config import PAPER_PREPROCESSING
from pipelines.config import AugmentConfig, Decoding, InputConfig
from pipelines.loader import PairLoader
from pipelines.pack import Pack
from pipelines.pairs import PairData, Share
from pipelines.selection import Selection

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]

ENCODINGS = encodings(GPU_SIZE.width, GPU_SIZE.height)


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """A node with a baseline and a progressive pack of 512 images of 500 x 375 pixels each."""
    made = Node("gpu", tmp_path_factory.mktemp("drawn"), replace(GPU_SIZE, images=512))
    for name in (ORIGINAL, PROGRESSIVE):
        draw_pack(made, name)
    return made


def batches(pack_path, steps, **config):
    pack = Pack(pack_path)
    data = PairData.select(pack, [Selection()], seed=4, num_negatives=3)
    decoding = Decoding(PAPER_PREPROCESSING, InputConfig(**config))
    loader = PairLoader(data, AugmentConfig(), decoding, Share(64))
    for batch, _ in zip(loader, range(steps)):
        yield batch.images


def test_cpu_and_gpu_show_the_same_augmented_images(pack_path):
    """The GPU's JPEG decoder rounds differently, by a level or two; nothing else differs."""
    for ours, others in zip(
        batches(pack_path, 4, device="gpu"), batches(pack_path, 4, device="cpu")
    ):
        assert Differences.between(ours, others).num_wrong == 0


@pytest.mark.parametrize("kind", ENCODINGS)
def test_cpu_and_gpu_decode_each_encoding_alike(kind):
    assert compare_pixels(ENCODINGS[kind], "gpu", 224).num_wrong == 0


@pytest.mark.parametrize("hw_decoder_load", [0.0, 0.65, 1.0])
@pytest.mark.parametrize("name", [ORIGINAL, PROGRESSIVE])
def test_images_stay_right_while_the_gpu_is_busy(node, name, hw_decoder_load):
    """A decoder that ignores the order of streams overwrites or hands out unfinished images."""
    found = compare_while_busy(Pack(node.folder / name), node, hw_decoder_load)
    assert found.num_wrong == 0


@pytest.mark.parametrize("check_crc", [True, False])
def test_a_damaged_pack_is_read_to_the_end(node, tmp_path, check_crc):
    damaged = Node("gpu", tmp_path, node.size)
    pack = draw_pack(damaged, ORIGINAL)
    rows = damage_pack(pack)
    assert survive_damage(Pack(pack.path), rows, damaged, check_crc=check_crc).passed


def test_images_come_on_the_device_in_half_precision_and_channels_last(pack_path):
    (images,) = batches(pack_path, 1, device="gpu", dtype="float16")
    assert images.device.type == "cuda"
    assert images.dtype == torch.float16
    assert images.is_contiguous(memory_format=torch.channels_last)
