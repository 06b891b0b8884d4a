"""DALI's pixels against torchvision's operations on Pillow's decode of the same bytes."""

import io

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
import pytest
import torch
import torchvision.transforms.functional as F
from nvidia.dali import pipeline_def
from PIL import Image

from model.config import Preprocessing
from model.geometry import crop_view
from pipelines.augmentation import Augmentation
from pipelines.config import Decoding, InputConfig
from pipelines.graph import (
    decoder_options,
    graph_inputs,
    image_graph,
    image_pipeline,
    mix_with_gray,
)
from tests.pipelines.photographs import JPEGS, SIZES, encoded, photograph

SIZE = 96
PREPROCESSING = Preprocessing(image_size=SIZE)


def through_dali(jpegs, augmentation, preprocessing=PREPROCESSING, dtype="float32"):
    pipeline = image_pipeline(
        lambda _info: graph_inputs(jpegs, augmentation),
        Decoding(preprocessing, InputConfig(device="cpu", num_threads=2, prefetch=1, dtype=dtype)),
        batch_size=len(jpegs),
    )
    (output,) = pipeline.run()
    return torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)


def pixels(normalized):
    mean, std = torch.tensor(PREPROCESSING.mean), torch.tensor(PREPROCESSING.std)
    return 255 * (normalized.float() * std[:, None, None] + mean[:, None, None])


def through_torchvision(jpeg, a, n):
    image = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
    left, top, width, height = a.view.window[n].tolist()
    image = F.resized_crop(image, top, left, height, width, [SIZE, SIZE])
    if a.brightness[n] != 1:
        image = F.adjust_brightness(image, float(a.brightness[n]))
    if a.contrast[n] != 1:
        image = F.adjust_contrast(image, float(a.contrast[n]))
    if a.saturation[n] != 1:
        image = F.adjust_saturation(image, float(a.saturation[n]))
    if a.hue[n] != 0:
        image = F.adjust_hue(image, float(a.hue[n]))
    if a.flip[n]:
        image = F.hflip(image)
    return F.pil_to_tensor(image).float()


def augmentation(crop=None, **changes):
    """The given crop, or one of each image; ``changes`` are repeated over the images."""
    n = len(JPEGS)
    width, height = np.array(SIZES).T
    one = np.ones(n, np.float32)
    if crop is None:
        crop = np.stack([width // 9, height // 7, width * 4 // 5, height * 3 // 4], 1)
    values = {
        "view": crop_view(np.broadcast_to(crop, (n, 4)).astype(np.int32), SIZE),
        "flip": np.arange(n) % 2 == 0,
        "brightness": one,
        "contrast": one,
        "saturation": one,
        "hue": 0 * one,
    }
    spread = {
        name: np.resize(np.asarray(value, values[name].dtype), n) for name, value in changes.items()
    }
    return Augmentation(**(values | spread))


def mean_difference(a):
    ours = pixels(through_dali(JPEGS, a))
    return [
        float((ours[n] - through_torchvision(jpeg, a, n)).abs().mean())
        for n, jpeg in enumerate(JPEGS)
    ]


# Mean absolute difference on the scale 0 to 255, for the worst of the images. Decoding is equal
# bit for bit; resizing rounds differently, and each change of color rounds once more.
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 0.3),
        ({"brightness": [0.3, 0.8, 1.4]}, 0.6),
        ({"contrast": [0.3, 0.8, 1.6]}, 0.8),
        ({"saturation": [0.3, 0.8, 1.5]}, 0.8),
        ({"saturation": [0.0]}, 0.8),
        ({"brightness": [0.6, 1.5], "contrast": [0.5, 1.7], "saturation": [0.4, 1.6, 0]}, 1.5),
    ],
    ids=["crop-resize-flip", "brightness", "contrast", "saturation", "grayscale", "all"],
)
def test_pixels_equal_torchvisions(changes, tolerance):
    assert max(mean_difference(augmentation(**changes))) < tolerance


def test_nothing_beyond_the_crop_is_seen():
    white = np.full((200, 300, 3), 255, np.uint8)
    white[50:150, 60:240] = 0
    a = augmentation(crop=(60, 50, 180, 100))
    images = through_dali([encoded(Image.fromarray(white), format="PNG")] * len(JPEGS), a)
    assert pixels(images).abs().max() < 0.01


def test_hue_turns_the_same_way_as_torchvisions():
    """DALI turns the hue at constant luma (YIQ), torchvision at constant value (HSV). So colors
    move the same way but not to the same place, by up to 21/255 on these saturated images."""
    turned = augmentation(hue=[0.05, -0.1])
    back = augmentation(hue=[-0.05, 0.1])
    ours = pixels(through_dali(JPEGS, turned))
    for n, jpeg in enumerate(JPEGS):
        with_it = (ours[n] - through_torchvision(jpeg, turned, n)).abs().mean()
        against = (ours[n] - through_torchvision(jpeg, back, n)).abs().mean()
        assert with_it < 21
        assert with_it < 0.6 * against


def test_evaluation_images_equal_the_squashed_resize():
    width, height = np.array(SIZES).T
    whole = augmentation(crop=np.stack([0 * width, 0 * height, width, height], 1), flip=False)
    assert max(mean_difference(whole)) < 0.3


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {"format": "JPEG"}),
        ("CMYK", {"format": "JPEG"}),
        ("RGB", {"format": "JPEG", "subsampling": 0}),
        ("RGB", {"format": "PNG"}),
        ("RGBA", {"format": "PNG"}),
        ("L", {"format": "PNG"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_other_encodings_decode_as_pillow_does(mode, options):
    data = encoded(photograph(3, SIZE, SIZE).convert(mode), **options)
    a = augmentation(crop=[0, 0, SIZE, SIZE], flip=False)
    ours = pixels(through_dali([data] * len(JPEGS), a))
    assert float((ours[0] - through_torchvision(data, a, 0)).abs().mean()) < 0.6


def test_half_precision_is_the_same_image():
    a = augmentation(brightness=[0.6, 1.5])
    half = through_dali(JPEGS, a, dtype="float16")
    assert half.dtype == torch.float16
    assert float((half.float() - through_dali(JPEGS, a)).abs().max()) < 4e-3


def test_the_output_is_channels_last():
    images = through_dali(JPEGS, augmentation())
    assert images.shape == (len(JPEGS), 3, SIZE, SIZE)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_gpus_contrast_differs_from_the_cpus_by_a_rounding():
    """The form that runs on a GPU, computed on the CPU, against DALI's own operator."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (16, 40, 50, 3), dtype=np.uint8)
    contrast = np.linspace(0.2, 1.8, 16, dtype=np.float32)
    gray = rng.uniform(60, 200, 16).astype(np.float32)

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, exec_dynamic=True)
    def both():
        images, factor, center = (
            fn.external_source(source=[list(values)], batch=True)
            for values in (pictures, contrast, gray)
        )
        rounded = fn.brightness_contrast(images, contrast=factor, contrast_center=center)
        return rounded, mix_with_gray(images, factor, center)

    rounded, exact = (np.stack([np.asarray(i) for i in out]) for out in both().run())
    assert np.abs(rounded.astype(np.float32) - exact).max() <= 1.01
    assert exact.min() >= 0
    assert exact.max() <= 255


def test_the_gpus_graph_never_copies_from_the_gpu_to_the_host():
    graph = image_graph(
        lambda _info: None,
        PREPROCESSING,
        decoder_options(InputConfig()),
        types.FLOAT16,
        batch_size=4,
        num_threads=1,
        device_id=None,  # so that the graph can be made, though not built, without a GPU
    )
    assert graph.serialize()
    inputs = [node for operator in graph._ops for node in operator.inputs]
    assert any(node.device == "gpu" for node in inputs)
    made_on = {node.name: node.device for operator in graph._ops for node in operator.outputs}
    assert not [node.name for node in inputs if (made_on[node.name], node.device) == ("gpu", "cpu")]
