"""Evaluation's pixels against timm's transform of the same files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms.functional import pil_to_tensor

from model.config import Preprocessing, PreprocessingOptions
from model.geometry import evaluation_view
from model.transform import prepare
from pipelines.augmentation import unchanged
from pipelines.config import Decoding, InputConfig
from pipelines.graph import graph_inputs, image_pipeline
from tests.pipelines.photographs import JPEGS, SIZES

HALF = (0.5, 0.5, 0.5)
PIL_IMAGES = [Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB") for jpeg in JPEGS]


def by_dali(preprocessing):
    width, height = np.array(SIZES).T
    augmentation = unchanged(evaluation_view(preprocessing, width, height))
    pipeline = image_pipeline(
        lambda _info: graph_inputs(JPEGS, augmentation),
        Decoding(preprocessing, InputConfig(device="cpu", num_threads=1, prefetch=1)),
        batch_size=len(JPEGS),
    )
    (output,) = pipeline.run()
    return torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)


def by_timm(preprocessing):
    transform = create_transform(
        (3, preprocessing.image_size, preprocessing.image_size),
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
    )
    return torch.stack([transform(image) for image in PIL_IMAGES])


def by_torch(preprocessing):
    return torch.stack([prepare(pil_to_tensor(image), preprocessing) for image in PIL_IMAGES])


# Resizing rounds differently in each library, and timm rounds the mean that fills a border. Mean
# absolute difference of the worst of the images, and largest difference, in levels of 255.
@pytest.mark.parametrize("ours", [by_dali, by_torch])
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(image_size=96),
        Preprocessing(96, HALF, HALF, "bicubic", "center", 0.875),
        Preprocessing(97, HALF, (0.2, 0.3, 0.4), "bilinear", "center", 0.95),
        Preprocessing(96, interpolation="bicubic", crop_mode="center", crop_pct=1.0),
        Preprocessing(96, interpolation="bicubic", crop_mode="squash", crop_pct=0.9),
        Preprocessing(97, HALF, HALF, "bicubic", "border", 0.9),
        Preprocessing(96, HALF, HALF, "bilinear", "border", 1.15),
    ],
    ids=lambda p: f"{p.crop_mode}-{p.crop_pct}-{p.interpolation}-{p.image_size}",
)
def test_pixels_equal_timms(preprocessing, ours):
    levels = 255 * torch.tensor(preprocessing.std)[:, None, None]
    difference = (ours(preprocessing) - by_timm(preprocessing)).abs() * levels
    tolerance = 0.5 if preprocessing.crop_mode == "border" else 0.3
    assert difference.mean(dim=(1, 2, 3)).max() < tolerance
    assert difference.max() < 2.01


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_window_holds_all_that_is_shown_and_nothing_outside_of_the_image(mode):
    rng = np.random.default_rng(0)
    width, height = rng.integers(1, 2000, (2, 500))
    view = evaluation_view(Preprocessing(64, crop_mode=mode, crop_pct=0.8), width, height)
    left, top, window_width, window_height = view.window.T
    assert (view.window[:, :2] >= 0).all()
    assert (view.window[:, 2:] >= 1).all()
    assert (left + window_width <= width).all()
    assert (top + window_height <= height).all()
    assert (view.region[:, :2] >= 0).all()
    assert (view.region[:, 2:] <= view.window[:, 2:]).all()
    assert ((view.size >= 1) & (view.size <= 64)).all()


def test_a_long_image_is_not_resized_as_a_whole():
    """A center crop of 65,535 x 1 pixels would pass through an image of 16 million columns."""
    view = evaluation_view(
        Preprocessing(224, crop_mode="center", crop_pct=0.875), np.array([65535]), np.array([1])
    )
    assert view.window[0, 2] < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": 100_000}, "from 1 to 4096"),
        ({"mean": (0.5, 0.5)}, "three numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "above 0"),
        ({"mean": (127.0, 127.0, 127.0)}, "from 0 to 1"),
        ({"interpolation": "nearest"}, "choose bilinear, bicubic"),
        ({"crop_mode": "crop"}, "choose center, squash, border"),
        ({"crop_pct": 0.0}, "crop_pct is 0.0"),
    ],
)
def test_impossible_preprocessing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)
    with pytest.raises(ValueError, match=message):
        PreprocessingOptions(**options)


def test_only_rgb_images_are_prepared():
    with pytest.raises(ValueError, match="uint8"):
        prepare(torch.zeros(1, 40, 40, dtype=torch.uint8), Preprocessing())
    with pytest.raises(ValueError, match="uint8"):
        prepare(torch.zeros(3, 40, 40), Preprocessing())
