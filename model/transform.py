"""Prepares an image of your own as evaluation prepares those of a pack."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.config import Preprocessing
from model.geometry import crop_offsets, resized_sizes


def prepare(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resize, crop and normalize one decoded image.

    Args:
        image: uint8 (3, H, W), RGB, of any size and on any device.
        preprocessing: what the network was trained with.

    Returns:
        float32 (3, S, S). Before normalization it differs from the input that DALI makes of the
        same file by less than one of 255 levels.

    Raises:
        ValueError: the image has another shape or type.
    """
    if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8:
        raise ValueError(
            f"an image is {image.dtype} {tuple(image.shape)}; give RGB images as uint8 (3, H, W)"
        )
    side = preprocessing.image_size
    resized = resized_sizes(preprocessing, np.array([image.shape[:0:-1]]))
    ((width, height),) = resized.tolist()
    ((left, top),) = crop_offsets(preprocessing, resized).tolist()
    pixels = functional.interpolate(
        image[None].float(), (height, width), mode=preprocessing.interpolation, antialias=True
    )
    pixels = pixels[0].round().clamp(0, 255)[:, top : top + side, left : left + side] / 255
    mean, std = (
        torch.tensor(values, device=image.device)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    shown = (pixels - mean) / std
    free_width, free_height = side - shown.shape[2], side - shown.shape[1]
    before = free_width // 2, free_height // 2
    return functional.pad(
        shown, (before[0], free_width - before[0], before[1], free_height - before[1])
    )
