"""Resizing and cropping as numbers: which part of an image a network's input shows. No torch."""

import math
from typing import NamedTuple

import numpy as np

from model.config import Preprocessing

_SUPPORT = {"bilinear": 1, "bicubic": 2}  # half the filter's width, in pixels of the coarser image


class View(NamedTuple):
    """What n network inputs show: a region of a window of each source image, resized.

    Attributes:
        window: int32 (n, 4), left, top, width and height in source pixels; nothing outside of it
            is read.
        region: float32 (n, 4), left, top, right and bottom in pixels of the window.
        size: int32 (n, 2), width and height that the region is resized to, at most S; where it is
            smaller than S it is centered in the input.
    """

    window: np.ndarray
    region: np.ndarray
    size: np.ndarray


def crop_view(window: np.ndarray, image_size: int) -> View:
    """The windows, int32 (n, 4) as in ``View``, resized to ``image_size`` squares."""
    region = np.zeros(window.shape, dtype=np.float32)
    region[:, 2:] = window[:, 2:]
    return View(window, region, np.full((len(window), 2), image_size, dtype=np.int32))


def evaluation_view(preprocessing: Preprocessing, width: np.ndarray, height: np.ndarray) -> View:
    """The views that evaluation takes of images of the given sizes, int (n,).

    Resizing an image and cropping the result is the same as resizing a region of it, as long as the
    window around the region holds all the pixels under the filter.
    """
    source = np.stack([width, height], axis=1).astype(np.int64)
    resized = resized_sizes(preprocessing, source)
    size = np.minimum(resized, preprocessing.image_size)
    offset = crop_offsets(preprocessing, resized)
    scale = source / resized
    start, end = offset * scale, (offset + size) * scale
    margin = _SUPPORT[preprocessing.interpolation] * np.maximum(scale, 1) + 1
    low = np.maximum(np.floor(start - margin), 0)
    high = np.minimum(np.ceil(end + margin), source)
    return View(
        window=np.concatenate([low, high - low], axis=1).astype(np.int32),
        region=np.concatenate([start - low, end - low], axis=1).astype(np.float32),
        size=size.astype(np.int32),
    )


def resized_sizes(preprocessing: Preprocessing, source: np.ndarray) -> np.ndarray:
    """The sizes, int64 (n, 2), of images of size ``source``, int64 (n, 2), before the crop; as
    torchvision's ``Resize`` and timm's ``ResizeKeepRatio`` round them."""
    side = math.floor(preprocessing.image_size / preprocessing.crop_pct)
    if preprocessing.crop_mode == "squash":
        return np.full_like(source, side)
    if preprocessing.crop_mode == "border":
        ratio = source.max(axis=1, keepdims=True) / side
        return np.maximum(np.rint(source / ratio).astype(np.int64), 1)
    return side * source // source.min(axis=1, keepdims=True)


def crop_offsets(preprocessing: Preprocessing, resized: np.ndarray) -> np.ndarray:
    """Left and top of the center crop, int64 (n, 2); 0 where there is nothing to crop. Halves are
    rounded to even, as torchvision's ``CenterCrop`` does."""
    room = np.maximum(resized - preprocessing.image_size, 0)
    return np.rint(room / 2).astype(np.int64)
