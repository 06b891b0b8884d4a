"""Configuration of the input pipeline; importing it loads neither torch nor DALI."""

from dataclasses import dataclass
from typing import Literal

from model.config import Preprocessing
from runtime.checks import check_numbers, number, whole
from runtime.command import DeviceName


@dataclass(frozen=True)
class InputConfig:
    """How images are read and decoded.

    Attributes:
        device: where DALI decodes; ``auto`` is the GPU if torch sees one, else the CPU.
        num_threads: DALI's worker threads; 0 means this process's share of the cores.
        prefetch: batches prepared ahead of the one in use.
        dtype: data type of the decoded images.
        check_crc: whether training compares each image's checksum with the index when it reads it,
            since decoders may crash on damaged images. Evaluation always does.
        max_damaged: damaged samples that each process replaces in training; one more is an error.
        hw_decoder_load: fraction of the images, 0 to 1, given to the GPU's hardware JPEG decoder.
        preallocate: quantile, 0 to 1, of the pack's image widths and heights for which the GPU
            decoder allocates memory at the start; it allocates more for larger images.
    """

    device: DeviceName = "auto"
    num_threads: int = 0
    prefetch: int = 2
    dtype: Literal["float32", "float16"] = "float32"
    check_crc: bool = True
    max_damaged: int = 100
    hw_decoder_load: float = 0.65
    preallocate: float = 0.99

    def __post_init__(self) -> None:
        check_numbers(
            "input",
            self,
            num_threads=whole(0, 1024),
            prefetch=whole(1, 64),
            max_damaged=whole(0),
            hw_decoder_load=number(0, 1),
            preallocate=number(0, 1),
        )


@dataclass(frozen=True)
class Decoding:
    """How encoded images become the network's input.

    Attributes:
        preprocessing: which pixels the network sees.
        config: how images are read and decoded.
        device_id: number of the GPU; ignored when the CPU decodes.
    """

    preprocessing: Preprocessing
    config: InputConfig
    device_id: int = 0


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of the training augmentation; the defaults are the paper's.

    Attributes:
        scale: smallest and largest fraction of the image's area that a crop covers.
        ratio: smallest and largest width/height of a crop.
        flip: probability of a horizontal flip.
        jitter: probability of changing brightness, contrast, saturation and hue.
        brightness: factors are uniform in ``[max(0, 1 - brightness), 1 + brightness]``.
        contrast: as for brightness; contrast changes about the mean gray.
        saturation: as for brightness.
        hue: turns are uniform in ``[-hue, hue]``, 1 being the full color circle.
        grayscale: probability of dropping the color.
    """

    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.5
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.1
    grayscale: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(
            "augment",
            self,
            scale=number(0, 1),
            ratio=number(0.01, 100),
            flip=number(0, 1),
            jitter=number(0, 1),
            brightness=number(0, 100),
            contrast=number(0, 100),
            saturation=number(0, 100),
            hue=number(0, 0.5),
            grayscale=number(0, 1),
        )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"augment.scale must be 0 < low <= high <= 1, got {self.scale}")
        if not self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"augment.ratio must be low <= high, got {self.ratio}")
