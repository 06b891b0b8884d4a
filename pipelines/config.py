"""Configuration of the input pipeline; importing it loads neither torch nor DALI."""

from dataclasses import dataclass
from typing import Literal

from model.config import Preprocessing
from runtime.checks import check_numbers, number, whole
from runtime.command import DeviceName

MAX_PAIRS = 2**24  # per step


@dataclass(frozen=True)
class InputConfig:
    """How images are read and decoded.

    Attributes:
        device: where the network runs and DALI decodes; ``auto`` is the GPU if torch sees one,
            else the CPU.
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
class SamplingConfig:
    """How the pairs of a step are drawn.

    ``independent`` draws each pair on its own, with two images that no other pair of the step
    uses: the paper's way. ``classes`` draws groups of ``classes`` classes with ``images`` images
    each and makes many pairs of one image: each two images of a class are a positive pair, and each
    positive pair comes with ``negatives`` negative ones, of one of its images and a drawn image of
    another class of the group. All other keys belong to ``classes``.

    Attributes:
        kind: ``independent`` or ``classes``.
        classes: P, different classes of a group.
        images: K, images of each class.
        negatives: R, negative pairs per positive pair.
        hard_negatives: H of them join images that the network finds similar when the step is done,
            instead of drawn ones.
        groups: G, groups per step over all devices; a device takes complete groups.
        cross_domain: positive pairs join images of different domains where the class has several.
        same_domain_negatives: negative pairs join images of one domain where the group has such.
        mean_partners: the partner may be the mean of the features of up to K - 1 images of its
            class, as prototypes are in evaluation.
    """

    kind: Literal["independent", "classes"] = "independent"
    classes: int = 32
    images: int = 4
    negatives: int = 3
    hard_negatives: int = 0
    groups: int = 1
    cross_domain: bool = False
    same_domain_negatives: bool = False
    mean_partners: bool = False

    def __post_init__(self) -> None:
        check_numbers(
            "data.sampling",
            self,
            classes=whole(2, 65_536),
            images=whole(2, 256),
            negatives=whole(1, 10_000),
            hard_negatives=whole(0),
            groups=whole(1, MAX_PAIRS),
        )
        if self.hard_negatives > self.negatives:
            raise ValueError(
                f"data.sampling.hard_negatives is {self.hard_negatives}, of "
                f"data.sampling.negatives {self.negatives}; reduce it, or raise negatives"
            )
        if self.mean_partners and self.images < 3:
            raise ValueError(
                f"data.sampling.mean_partners needs data.sampling.images of 3 or more, not "
                f"{self.images}"
            )
        if self.groups * self.pairs_per_group > MAX_PAIRS:
            raise ValueError(
                f"data.sampling makes {self.groups * self.pairs_per_group:,} pairs per step; at "
                f"most {MAX_PAIRS:,} are possible, so reduce classes, images, negatives or groups"
            )

    @property
    def images_per_group(self) -> int:
        """The images of a group, P * K."""
        return self.classes * self.images

    @property
    def pairs_per_group(self) -> int:
        """The pairs of a group, P * K * (K - 1) / 2 * (1 + R)."""
        return self.classes * self.images * (self.images - 1) // 2 * (1 + self.negatives)


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
