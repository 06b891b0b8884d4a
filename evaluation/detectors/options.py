"""The options of ``python -m evaluation`` and ``predict.py``; imports nothing slow."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluation.config import CovarianceOptions, evaluator_name
from model.config import (
    BASELINES,
    NEED_CLASSIFIER,
    RELATIONAL,
    EvaluatorOptions,
    Precision,
    PreprocessingOptions,
)
from runtime.command import DeviceName, fraction

ExportFormat = Literal["onnx", "torch"]
PREDICTION_FORMATS = (".csv", ".jsonl", ".parquet")


def one_evaluator(text: str) -> str:
    """An argparse type: the name of an evaluator."""
    name = evaluator_name(text)
    if name == "all":
        raise argparse.ArgumentTypeError("a detector has one evaluator, not all")
    if name in NEED_CLASSIFIER:
        raise argparse.ArgumentTypeError(
            f"{name} needs a classifier of the known classes, which a detector does not have; "
            f"choose from {', '.join(RELATIONAL + BASELINES)}"
        )
    return name


def share(text: str) -> float:
    """An argparse type: a fraction above 0."""
    value = fraction(text)
    if not value:
        raise argparse.ArgumentTypeError("it must be above 0")
    return value


def prediction_file(text: str) -> Path:
    """An argparse type: a file of a format for predictions."""
    path = Path(text)
    if path.suffix not in PREDICTION_FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text} has none of the extensions {', '.join(PREDICTION_FORMATS)}"
        )
    return path


@dataclass(frozen=True)
class FitSubject:
    """What is fitted, and where it goes.

    Attributes:
        references: a pack, or a folder with a folder of images for each known class.
        out: folder for the detector.
        checkpoint: a run (its newest checkpoint), a step folder, a weights file, or a folder of
            the original's two files; of a classification run the bare backbone is taken.
        backbone: in place of a checkpoint a bare backbone: one of timm's models.
        weights: file of the backbone's weights; without it, timm downloads those it has published.
        overwrite: replace the detector in --out, if any.
    """

    references: Path
    out: Path
    checkpoint: Path | None = None
    backbone: str | None = None
    weights: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class SelectionOptions:
    """Which images of a pack are taken.

    Attributes:
        domains: domains of the pack to take (default: all).
        classes: classes of the pack to take (default: all).
        splits: splits of the pack to take (default: all).
    """

    domains: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RuleOptions:
    """How images are compared with the references.

    Attributes:
        evaluator: one of evaluate.py's evaluators that need no classifier; by default
            relation-logit, for a bare backbone cosine.
        significant: references per class for significant-*.
        neighbors: k of the k-NN scores.
        prototypes_only: keep the mean feature of each class instead of all its references, if the
            evaluator needs no more; the threshold then stays as it is when classes change.
    """

    evaluator: str | None = field(default=None, metadata={"type": one_evaluator})
    significant: int = EvaluatorOptions.significant
    neighbors: int = EvaluatorOptions.neighbors
    prototypes_only: bool = False


@dataclass(frozen=True)
class ThresholdOptions:
    """The images that the threshold is chosen on.

    Attributes:
        recall: share of these images that the threshold accepts.
        held_out: share of each class's references that are compared with the others to choose the
            threshold; afterwards all are references.
        threshold_set: a pack or folder with other images of the known classes, which takes the
            place of held-out references.
    """

    recall: float = field(default=0.95, metadata={"type": share})
    held_out: float = field(default=0.2, metadata={"type": share})
    threshold_set: Path | None = None


@dataclass(frozen=True)
class ComputeOptions:
    """How features are computed.

    Attributes:
        device: auto takes a GPU where there is one.
        batch_size: images per batch; 0 takes what suits the device.
    """

    device: DeviceName = "auto"
    batch_size: int = 0


# Fields come in the reverse order of the bases: those of FitSubject first.
@dataclass(frozen=True)
class FitConfig(
    ComputeOptions,
    PreprocessingOptions,
    CovarianceOptions,
    ThresholdOptions,
    RuleOptions,
    SelectionOptions,
    FitSubject,
):
    """The options of ``python -m evaluation fit``.

    Raises:
        ModelError: a value of the preprocessing is out of its range.
    """


@dataclass(frozen=True)
class AddClassConfig(ComputeOptions, SelectionOptions):
    """The options of ``python -m evaluation add-class``."""


@dataclass(frozen=True)
class ExportConfig:
    """The options of ``python -m evaluation export``.

    Attributes:
        out: file for the exported model.
        format: onnx, or a program of torch.export.
        features: export a model that takes features of the backbone in place of images.
        top: let relation-logit and relation-softmax compare each image with the so many classes
            that are nearest by cosine (default: all).
        overwrite: replace the file in --out, if any.
    """

    out: Path
    format: ExportFormat = "onnx"
    features: bool = False
    top: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class PredictOptions:
    """Where the predictions go.

    Attributes:
        out: file for the predictions: .csv, .jsonl or .parquet.
        report: HTML file for a page with the most novel images.
        overwrite: replace these files if they exist.
    """

    out: Path = field(metadata={"type": prediction_file})
    report: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class PredictConfig(ComputeOptions, PredictOptions):
    """The options of ``predict.py``.

    Attributes:
        precision: data type of the networks' arithmetic.
    """

    precision: Precision = EvaluatorOptions.precision
