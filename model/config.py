"""Configuration of networks, objectives and evaluators; importing it loads no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from model.errors import ModelError

if TYPE_CHECKING:
    from model.classifier import LinearClassifier
    from model.image_scores import ImageStatistics
    from model.whitening import Whitening

Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["center", "squash", "border"]
RGB = tuple[float, float, float]
MAX_IMAGE_SIZE = 4096
HeadName = Literal["linear", "mlp"]
SimilarityStart = Literal[False, True, "cosine", "whitened"]
ObjectiveName = Literal["mse", "hinge", "bce", "cross_entropy", "focal"]

RELATIONAL = (
    "relation-softmax",
    "relation-logit",
    "significant-softmax",
    "significant-logit",
    "relation-knn",
)
WHITENED_COSINE = "whitened-cosine"
BASELINES = (
    "cosine",
    WHITENED_COSINE,
    "euclidean",
    "mahalanobis",
    "mahalanobis-normalized",
    "relative-mahalanobis",
    "relative-mahalanobis-normalized",
    "knn",
    "knn-normalized",
)
# What these compare with are the class means alone.
BY_MEANS = ("relation-softmax", "relation-logit", "cosine", WHITENED_COSINE, "euclidean")
WITH_CLASSIFIER = (  # of features and a linear classifier of the known classes on them
    "msp",
    "max-logit",
    "energy",
    "gen",
    "gradnorm",
    "react",
    "vim",
    "nnguide",
    "she",
    "fdbd",
)
WITH_IMAGES = ("odin", "gram")  # of a classifier that is trained with its backbone
NEED_CLASSIFIER = WITH_CLASSIFIER + WITH_IMAGES
EVALUATORS = RELATIONAL + BASELINES + NEED_CLASSIFIER  # the keys of model.evaluators.EVALUATORS
RENAMED_EVALUATORS = {"knn-normalised": "knn-normalized"}  # accepted until 0.3

Precision = Literal["float32", "bfloat16"]


def _check_preprocessing(given: "Preprocessing") -> None:
    size = given.image_size
    if not (isinstance(size, int) and 1 <= size <= MAX_IMAGE_SIZE):
        raise ModelError(
            f"image_size is {size}; it must be a whole number from 1 to {MAX_IMAGE_SIZE}"
        )
    for name in ("mean", "std"):
        values = getattr(given, name)
        numbers = isinstance(values, tuple) and all(isinstance(v, int | float) for v in values)
        if not (numbers and len(values) == 3 and all(0 <= v <= 1 for v in values)):
            raise ModelError(f"{name} is {values}; it must be three numbers from 0 to 1")
    if not all(given.std):
        raise ModelError(f"std is {given.std}; it must be above 0")
    for name, choices in (
        ("interpolation", get_args(Interpolation)),
        ("crop_mode", get_args(CropMode)),
    ):
        if getattr(given, name) not in choices:
            raise ModelError(f"{name} is {getattr(given, name)}; choose {', '.join(choices)}")
    if not (isinstance(given.crop_pct, int | float) and 0.1 <= given.crop_pct <= 2):
        raise ModelError(f"crop_pct is {given.crop_pct}; it must be from 0.1 to 2")


@dataclass(frozen=True)
class Preprocessing:
    """How an RGB image becomes the network's input; the defaults are the paper's.

    In evaluation an image is first resized, with t = floor(image_size / crop_pct) pixels:

    - ``center``: the short side becomes t;
    - ``squash``: both sides become t, whatever the aspect ratio;
    - ``border``: the long side becomes t.

    Then its center of ``image_size`` x ``image_size`` is cropped, padded with the mean where the
    resized image is smaller. These are the modes of ``timm.data.create_transform``. Training takes
    random crops instead, and uses only ``image_size``, ``interpolation``, ``mean`` and ``std``.

    Attributes:
        image_size: S, height and width of the network's input in pixels.
        mean: subtracted from the pixels of each channel, on a scale of 0 to 1.
        std: divides the result, per channel, on the same scale.
        interpolation: filter of the resize, which is antialiased.
        crop_mode: how an image is resized in evaluation.
        crop_pct: S as a fraction of the resized side.

    Raises:
        ModelError: a value is out of its range.
    """

    image_size: int = 224
    mean: RGB = (0.485, 0.456, 0.406)
    std: RGB = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    crop_mode: CropMode = "squash"
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        _check_preprocessing(self)

    @classmethod
    def of_checkpoint(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing in the configuration of a checkpoint; what it lacks is the default.

        Args:
            config: the checkpoint's YAML document, which may hold anything.

        Raises:
            ModelError: a value is of another type or out of its range.
        """
        saved = config.get("input", {})
        if not isinstance(saved, Mapping):
            raise ModelError("input is not a mapping of names to values")
        given = {field.name: saved[field.name] for field in fields(cls) if field.name in saved}
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in given.items()
        }
        return cls(**values)


PAPER_PREPROCESSING = Preprocessing()


@dataclass(frozen=True)
class PreprocessingOptions:
    """Changes of the preprocessing; null, or an option that is not given, changes nothing.

    Attributes:
        image_size: height and width of the network's input in pixels.
        mean: subtracted from the pixels of each channel (R, G, B), on a scale of 0 to 1.
        std: divides the result, per channel, on the same scale.
        interpolation: filter of the resize, which is antialiased.
        crop_mode: how an image is made square in evaluation: center crops its middle, squash
            ignores its aspect ratio, border pads it.
        crop_pct: the input's size as a fraction of the side to which an image is resized first.
    """

    image_size: int | None = None
    mean: RGB | None = None
    std: RGB | None = None
    interpolation: Interpolation | None = None
    crop_mode: CropMode | None = None
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        self.applied_to(PAPER_PREPROCESSING)

    def applied_to(self, preprocessing: Preprocessing) -> Preprocessing:
        """``preprocessing`` with the values that are given here."""
        given = {f.name: getattr(self, f.name) for f in fields(PreprocessingOptions)}
        return replace(preprocessing, **{n: v for n, v in given.items() if v is not None})


@dataclass(frozen=True)
class ModelConfig:
    """What ``build_network`` builds; the defaults are the paper's.

    Attributes:
        backbone: the name of a timm model.
        embed_dim: width of the relational module's tokens.
        depth: transformer blocks of the relational module.
        num_heads: attention heads of each block.
        head: ``linear`` (the paper) or ``mlp`` (the follow-up, arXiv 2307.06179).
        num_logits: outputs of the head, 1 or 2 (same, different).
        similarity_start: begin at cosine similarity instead of at random; ``whitened`` measures it
            in the space where the features of a training class spread equally in all directions.
            true means ``cosine``.

    Raises:
        ModelError: a value is of another type or out of its range.
    """

    backbone: str = "resnet18"
    embed_dim: int = 768
    depth: int = 4
    num_heads: int = 12
    head: HeadName = "linear"
    num_logits: int = 1
    similarity_start: SimilarityStart = False

    def __post_init__(self) -> None:
        if self.similarity_start not in get_args(SimilarityStart):
            raise ModelError(
                f"model.similarity_start is {self.similarity_start}; choose false, cosine or "
                "whitened"
            )
        if not isinstance(self.backbone, str):
            raise ModelError(f"model.backbone must be a name, not {self.backbone}")
        for name, largest in (
            ("embed_dim", 8192),
            ("depth", 128),
            ("num_heads", 512),
            ("num_logits", 2),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= largest:
                raise ModelError(
                    f"model.{name} must be a whole number from 1 to {largest}, not {value}"
                )


@dataclass(frozen=True)
class ObjectiveConfig:
    """The training objective and its parameter.

    Attributes:
        name: ``mse`` is the paper's, ``hinge`` the follow-up's choice. ``cross_entropy`` is the
            softmax cross-entropy of a head with two logits; since the network returns their
            difference, it is computed as ``bce``. ``focal`` is the focal loss for either head.
        compression: c of ``mse``, the slope of the sigmoid.
        margin: m of ``hinge``.
        gamma: exponent of ``focal``.

    Raises:
        ModelError: an unknown name, or a number that is not positive.
    """

    name: ObjectiveName = "mse"
    compression: float = 10.0
    margin: float = 0.01
    gamma: float = 3.0

    def __post_init__(self) -> None:
        names = get_args(ObjectiveName)
        if self.name not in names:
            raise ModelError(f"objective {self.name!r} is unknown; choose {', '.join(names)}")
        for field in ("compression", "margin", "gamma"):
            if not 0 < getattr(self, field) < math.inf:
                raise ModelError(
                    f"objective.{field} is {getattr(self, field)}; it must be finite and > 0"
                )


@dataclass(frozen=True)
class EvaluatorOptions:
    """Parameters of the evaluators.

    Attributes:
        significant: references per class for ``significant-*``.
        neighbors: k of the k-NN scores.
        top: relational scores of class means and significant references compare each test with
            the classes nearest by cosine, so many; None compares it with all.
        memory: bytes for the intermediate values of relational scoring and of neighbor searches;
            None takes ``model.pairwise.tile_memory`` of the device.
        precision: data type of the relational module's matrix products.
        whitening: the map of ``whitened-cosine``; None takes that of the relational module.
        classifier: of the known classes on the same features, for ``NEED_CLASSIFIER``.
        images: what ``WITH_IMAGES`` read of the same tests.
    """

    significant: int = 5
    neighbors: int = 50
    top: int | None = None
    memory: int | None = None
    precision: Precision = "float32"
    whitening: "Whitening | None" = None
    classifier: "LinearClassifier | None" = None
    images: "ImageStatistics | None" = None
