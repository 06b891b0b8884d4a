"""Loaders of small images."""

from model.config import Preprocessing
from pipelines.config import AugmentConfig, Decoding, InputConfig, SamplingConfig
from pipelines.loader import PairLoader
from pipelines.pairs import PairData, Share
from pipelines.selection import Selection


def decoding(**options):
    config = InputConfig(device="cpu", num_threads=1, **options)
    return Decoding(Preprocessing(image_size=32), config)


def pair_loader(pack, *share, start_step=0, **options):
    """Steps of 12 pairs; ``share`` is (rank, world_size), ``options`` those of ``InputConfig``."""
    data = PairData.select(pack, [Selection()] * len(pack.members), seed=4, num_negatives=3)
    augment, images = AugmentConfig(), decoding(**options)
    return PairLoader(data, augment, images, Share(12, *share), start_step=start_step)


def group_loader(pack, *share, start_step=0, **options):
    """Steps of 4 groups of 3 classes x 3 images; the arguments are those of ``pair_loader``."""
    sampling = SamplingConfig("classes", classes=3, images=3, negatives=2)
    selections = [Selection()] * len(pack.members)
    data = PairData.select_groups(pack, selections, sampling, seed=4)
    augment, images = AugmentConfig(), decoding(**options)
    return PairLoader(data, augment, images, Share(4, *share), start_step=start_step)


def taken(loader, count):
    """(step, rows, images) of the first ``count`` batches."""
    return [(batch.step, batch.rows, batch.images) for batch, _ in zip(loader, range(count))]
