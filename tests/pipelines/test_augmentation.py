import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import ColorJitter, RandomResizedCrop

from model.geometry import crop_view
from pipelines.augmentation import draw_augmentation, unchanged
from pipelines.config import AugmentConfig
from pipelines.hashing import stream

N = 4000
SIGNIFICANCE = 1e-3  # of each test below; the seeds are fixed


def drawn(config=AugmentConfig(), width=500, height=375, seed=7):  # noqa: B008
    return draw_augmentation(
        config, 64, stream(seed, np.arange(N)), np.full(N, width), np.full(N, height)
    )


@pytest.mark.parametrize(("width", "height"), [(500, 375), (64, 64), (1000, 150), (20, 90)])
def test_crops_are_distributed_as_torchvisions(width, height):
    config = AugmentConfig()
    crop = drawn(config, width, height).view.window
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    reference = np.array(
        [
            RandomResizedCrop.get_params(image, list(config.scale), list(config.ratio))
            for _ in range(N)
        ]
    )[:, [1, 0, 3, 2]]
    for column in range(4):
        assert ks_2samp(crop[:, column], reference[:, column]).pvalue > SIGNIFICANCE
    assert (crop[:, :2] >= 0).all()
    assert (crop[:, 0] + crop[:, 2] <= width).all()
    assert (crop[:, 1] + crop[:, 3] <= height).all()


def test_factors_are_distributed_as_torchvisions():
    a = drawn(AugmentConfig(jitter=1.0, grayscale=0.0))
    torch.manual_seed(0)
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.1)
    reference = np.array(
        [
            ColorJitter.get_params(
                jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
            )[1:]
            for _ in range(N)
        ]
    )
    for column, values in enumerate((a.brightness, a.contrast, a.saturation, a.hue)):
        assert ks_2samp(values, reference[:, column]).pvalue > SIGNIFICANCE


def test_flip_jitter_and_grayscale_happen_as_often_as_asked():
    a = drawn(AugmentConfig(flip=0.3, jitter=0.6, grayscale=0.2))
    error = 4 * np.sqrt(0.25 / N)
    assert abs(a.flip.mean() - 0.3) < error
    assert abs((a.brightness != 1).mean() - 0.6) < error
    assert abs((a.saturation == 0).mean() - 0.2) < error


def test_draws_of_one_image_are_independent():
    a = drawn(AugmentConfig(jitter=1.0, grayscale=0.0))
    crop = a.view.window
    columns = [a.flip, a.brightness, a.contrast, a.saturation, a.hue, crop[:, 0], crop[:, 2]]
    correlation = np.corrcoef(np.array(columns, dtype=float))
    np.fill_diagonal(correlation, 0)
    correlation[-1, -2] = correlation[-2, -1] = 0  # a wider crop has less room to its left
    assert np.abs(correlation).max() < 4.5 / np.sqrt(N)


def test_uniform_draws_are_uniform():
    a = drawn(AugmentConfig(jitter=1.0))
    assert kstest((a.brightness - 0.2) / 1.6, "uniform").pvalue > SIGNIFICANCE


def test_augmentation_switched_off_leaves_the_image_alone():
    off = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grayscale=0)
    whole = unchanged(crop_view(np.tile(np.array([0, 0, 96, 96], np.int32), (N, 1)), 64))
    a = drawn(off, 96, 96)
    for name in ("flip", "brightness", "contrast", "saturation", "hue"):
        assert (getattr(a, name) == getattr(whole, name)).all(), name
    for name in ("window", "region", "size"):
        assert (getattr(a.view, name) == getattr(whole.view, name)).all(), name


@pytest.mark.parametrize(
    "setting",
    [{"scale": (0, 1)}, {"scale": (0.9, 0.8)}, {"ratio": (2, 1)}, {"flip": 1.5}, {"hue": 0.6}],
)
def test_impossible_strengths_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        AugmentConfig(**setting)
