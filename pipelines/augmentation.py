"""Random crop, flip and color jitter: parameters drawn per image by hashing, applied by DALI."""

from dataclasses import dataclass

import numpy as np

from model.geometry import View, crop_view
from pipelines.config import AugmentConfig
from pipelines.hashing import draw, stream, uniform

_CROP_TRIES = 10  # torchvision.transforms.RandomResizedCrop.get_params
(_FLIP, _APPLY_JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _GRAYSCALE) = range(7)
_CROPS = 7  # from here on four draws per try: area, aspect, top, left
_NUM_DRAWS = _CROPS + 4 * _CROP_TRIES
_VIEW = 8  # the purpose of a stream, hashed into its key


@dataclass(frozen=True)
class Augmentation:
    """The changes made to each of n images, in this order: crop, resize, brightness, contrast about
    the mean gray, saturation, hue, flip. Grayscale is a saturation of 0.

    Attributes:
        view: the crop of each image, and the size to which it is resized.
        flip: bool (n,).
        brightness, contrast, saturation: float32 (n,), factors; 1 leaves the image unchanged.
        hue: float32 (n,), turns of the color circle; 0 leaves the image unchanged.
    """

    view: View
    flip: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray


@dataclass(frozen=True)
class AugmentedView:
    """One augmented view of each image of a pack, the same in every run.

    Attributes:
        config: strength of the augmentation.
        number: which of the views, from 0 on; each has changes of its own.
    """

    config: AugmentConfig
    number: int

    def draw(
        self, image_size: int, rows: np.ndarray, width: np.ndarray, height: np.ndarray
    ) -> Augmentation:
        """The augmentation of ``rows``, int64 (n,), by hashing them; see ``draw_augmentation``."""
        keys = stream(0, rows, np.array(self.number), np.array(_VIEW))
        return draw_augmentation(self.config, image_size, keys, width, height)


def unchanged(view: View) -> Augmentation:
    """The augmentation of evaluation: each image keeps its ``view`` and its colors."""
    n = len(view.window)
    one = np.ones(n, dtype=np.float32)
    return Augmentation(view, np.zeros(n, dtype=bool), one, one, one, np.zeros_like(one))


def draw_augmentation(
    config: AugmentConfig,
    image_size: int,
    key: np.ndarray,
    width: np.ndarray,
    height: np.ndarray,
) -> Augmentation:
    """Draw the augmentation of n images.

    The distributions are those of torchvision's RandomResizedCrop, RandomApply of ColorJitter, and
    RandomGrayscale. ColorJitter applies its four changes in random order; here the order is fixed,
    see ``Augmentation``.

    Args:
        config: strength of the changes.
        image_size: S, height and width in pixels to which the crops are resized.
        key: uint64 (n,), one random stream per image.
        width: int (n,), of the source images, in pixels.
        height: int (n,), of the source images, in pixels.
    """
    chance = uniform(draw(key[:, None], np.arange(_NUM_DRAWS)[None, :]))
    jitter = chance[:, _APPLY_JITTER] < config.jitter
    saturation = _factor(jitter, chance[:, _SATURATION], config.saturation)
    hue = config.hue * (2 * chance[:, _HUE] - 1)
    crop = _crop(config, chance[:, _CROPS:].reshape(-1, _CROP_TRIES, 4), width, height)
    return Augmentation(
        view=crop_view(crop, image_size),
        flip=chance[:, _FLIP] < config.flip,
        brightness=_factor(jitter, chance[:, _BRIGHTNESS], config.brightness),
        contrast=_factor(jitter, chance[:, _CONTRAST], config.contrast),
        saturation=np.where(chance[:, _GRAYSCALE] < config.grayscale, np.float32(0), saturation),
        hue=np.where(jitter, hue, 0).astype(np.float32),
    )


def _factor(apply: np.ndarray, chance: np.ndarray, strength: float) -> np.ndarray:
    low, high = max(0.0, 1 - strength), 1 + strength
    return np.where(apply, low + (high - low) * chance, 1).astype(np.float32)


def _crop(
    config: AugmentConfig, chance: np.ndarray, width: np.ndarray, height: np.ndarray
) -> np.ndarray:
    """The first candidate window that fits, else the largest centered one with an allowed ratio.

    ``chance`` is float64 (n, tries, 4), uniform in [0, 1); the result is int32 (n, 4): left, top,
    width, height.
    """
    full_width, full_height = width.astype(np.int64)[:, None], height.astype(np.int64)[:, None]
    low, high = config.scale
    # One candidate per try: (n, tries).
    area = full_width * full_height * (low + (high - low) * chance[..., 0])
    low, high = np.log(config.ratio)
    ratio = np.exp(low + (high - low) * chance[..., 1])
    crop_width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    crop_height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (
        (crop_width > 0)
        & (crop_width <= full_width)
        & (crop_height > 0)
        & (crop_height <= full_height)
    )
    left = np.floor(chance[..., 3] * (full_width - crop_width + 1))
    top = np.floor(chance[..., 2] * (full_height - crop_height + 1))
    windows = np.stack([left, top, crop_width, crop_height], axis=-1)
    first = fits.argmax(axis=1)
    chosen = windows[np.arange(len(windows)), first]
    return np.where(
        fits.any(axis=1)[:, None], chosen, _central(config, full_width[:, 0], full_height[:, 0])
    ).astype(np.int32)


def _central(config: AugmentConfig, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    ratio = np.clip(width / height, *config.ratio)
    crop_width = np.minimum(width, np.rint(height * ratio).astype(np.int64))
    crop_height = np.minimum(height, np.rint(width / ratio).astype(np.int64))
    return np.stack(
        [(width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height], axis=1
    )
