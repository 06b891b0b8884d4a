"""What only a GPU can show: run with `pytest -m gpu`."""

import pytest
import torch

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


def batches(pack_path, steps, **config):
    pack = Pack(pack_path)
    data = PairData.select(pack, Selection(), seed=4, num_negatives=3)
    decoding = Decoding(PAPER_PREPROCESSING, InputConfig(**config))
    loader = PairLoader(data, AugmentConfig(), decoding, Share(64))
    for batch, _ in zip(loader, range(steps)):
        yield batch.images


def mean_difference(ours, others):
    """On the scale 0 to 255, over the images of a batch, the worst of them."""
    scale = 255 * torch.tensor(PAPER_PREPROCESSING.std, device=ours.device)[:, None, None]
    difference = (ours.float() - others.to(ours.device).float()).abs() * scale
    return float(difference.mean(dim=(1, 2, 3)).max())


def test_cpu_and_gpu_show_the_same_images(pack_path):
    """The GPU's JPEG decoder rounds differently, by a level or two; nothing else differs."""
    for ours, others in zip(
        batches(pack_path, 4, device="gpu"), batches(pack_path, 4, device="cpu")
    ):
        assert mean_difference(ours, others) < 2


def test_images_stay_right_while_the_gpu_is_busy(pack_path):
    """A decoder that ignores stream order hands out unfinished images under load."""
    busy = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    for ours, others in zip(
        batches(pack_path, 60, device="gpu", hw_decoder_load=0.65),
        batches(pack_path, 60, device="gpu", hw_decoder_load=0.0),
    ):
        for _ in range(20):
            busy = busy @ busy
        assert mean_difference(ours, others) < 2


def test_images_come_on_the_device_in_half_precision_and_channels_last(pack_path):
    (images,) = batches(pack_path, 1, device="gpu", dtype="float16")
    assert images.device.type == "cuda"
    assert images.dtype == torch.float16
    assert images.is_contiguous(memory_format=torch.channels_last)
