"""Configuration of an evaluation and the options of ``evaluate.py``; imports nothing slow."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar

from model.config import (
    EVALUATORS,
    RENAMED_EVALUATORS,
    EvaluatorOptions,
    Precision,
    PreprocessingOptions,
)
from runtime.command import DeviceName, current_name, natural
from runtime.errors import ConfigError

T = TypeVar("T")
ClassifierName = Literal["head", "full"]

RESAMPLES = 1000

RELATIONAL_DEFAULT = ("relation-softmax", "relation-logit", "cosine")
BARE_DEFAULT = (
    "cosine",
    "euclidean",
    "mahalanobis",
    "mahalanobis-normalized",
    "knn",
    "knn-normalized",
)

# Images per batch and process through the backbone; larger ones do not fit a CPU's caches.
BATCH_SIZE = {"cpu": 8, "cuda": 256}


def evaluator_name(name: str) -> str:
    """An argparse type: the name of an evaluator, or all."""
    name = current_name(name, RENAMED_EVALUATORS)
    if name not in (*EVALUATORS, "all"):
        raise argparse.ArgumentTypeError(
            f"no evaluator is called {name}; choose all, or from {', '.join(EVALUATORS)}"
        )
    return name


@dataclass(frozen=True)
class ReferenceConfig:
    """Which of a protocol's references are used.

    Attributes:
        shots: references drawn per class; 0 takes all.
        seed: random seed of the --shots draw; several repeat it, for mean and standard deviation.
        with_replacement: draw with replacement, as published few-shot numbers were.
        min_references: refuse a class with fewer references in the protocol.
    """

    shots: int = 0
    seed: tuple[int, ...] = field(default=(0,), metadata={"type": natural})
    with_replacement: bool = False
    min_references: int = 2


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and where the results go.

    Attributes:
        protocol: protocols, such as configs/benchmarks/demo.yaml, or OODDB's, such as ooddb:dtd.
        pack: folder or URL of one pack for all protocols, or of one per data set.
        lists: folder of the protocols' lists of images; by default that of the YAML file.
        leave_out_rejected: evaluate without the listed images that packing rejected.
        target: a target's name, or all.
        out: folder for the results.
        overwrite: replace the results in --out, if any.
        pack_cache: folder on each node's own disk to which packs at URLs are copied.
    """

    protocol: tuple[str, ...]
    pack: tuple[str, ...]
    lists: Path | None = None
    leave_out_rejected: bool = False
    target: str = "all"
    out: Path = Path("runs/evaluation")
    overwrite: bool = False
    pack_cache: Path | None = None


@dataclass(frozen=True)
class NetworkOptions:
    """Which networks are evaluated: the checkpoints, then the bare backbones. Where there are
    several, they are compared with the first.

    Attributes:
        checkpoint: runs (their newest checkpoints), step folders, weights files, or folders of
            the original's two files; of a classification run the bare backbone is evaluated.
        backbone: bare backbones: timm's models, such as resnet101.tv_in1k, scored by distances.
        weights: the backbones' weights, one file for each --backbone in their order; without it,
            timm downloads those it has published.

    Raises:
        ConfigError: there is no network, or the numbers of backbones and weights differ.
    """

    checkpoint: tuple[Path, ...] | None = None
    backbone: tuple[str, ...] | None = None
    weights: tuple[Path, ...] | None = None

    def __post_init__(self) -> None:
        if not self.checkpoint and not self.backbone:
            raise ConfigError("no network given; add --checkpoint or --backbone")
        files, names = len(self.weights or ()), len(self.backbone or ())
        if files and files != names:
            raise ConfigError(
                f"{files} --weights for {names} --backbone; give one file for each of the "
                "backbones, in their order, or none"
            )


@dataclass(frozen=True)
class ScoringOptions:
    """How test images are scored.

    Attributes:
        evaluators: some of relation-softmax, relation-logit, significant-softmax,
            significant-logit, relation-knn, cosine, whitened-cosine, euclidean, mahalanobis,
            mahalanobis-normalized, relative-mahalanobis, relative-mahalanobis-normalized, knn,
            knn-normalized, msp, max-logit, energy, gen, gradnorm, react, vim, nnguide, she, fdbd,
            odin, gram; or all that can be computed. By default relation-softmax, relation-logit and
            cosine; for a bare backbone cosine, euclidean, mahalanobis, mahalanobis-normalized, knn
            and knn-normalized.
        significant: references per class for significant-*.
        neighbors: k of the k-NN scores.
        top: compare each test's relation with the known classes nearest by cosine only, so many;
            by default with all. relation-knn is not affected.
        resamples: bootstrap resamples for the intervals of the AUROC and of its differences.
    """

    evaluators: tuple[str, ...] | None = field(default=None, metadata={"type": evaluator_name})
    significant: int = EvaluatorOptions.significant
    neighbors: int = EvaluatorOptions.neighbors
    top: int | None = None
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class CovarianceOptions:
    """The training images from which ``whitened-cosine`` learns its covariance.

    Attributes:
        covariance_pack: folder or URL of a pack with these images, none of which may be a test;
            without it, whitened-cosine takes what training has stored in the checkpoint.
        covariance_domains: domains of that pack to take (default: all).
        covariance_classes: classes of that pack to take (default: all).
        covariance_splits: splits of that pack to take (default: all).
    """

    covariance_pack: str | None = None
    covariance_domains: tuple[str, ...] | None = None
    covariance_classes: tuple[str, ...] | None = None
    covariance_splits: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ClassifierOptions:
    """The classifier of the known classes that msp and the evaluators after it need.

    Attributes:
        classifier: head trains a linear layer on the features of the references of each target,
            full the backbone as well, on their images; odin and gram need full.
        budget: training steps of 64 references each.
    """

    classifier: ClassifierName | None = None
    budget: int = 100


@dataclass(frozen=True)
class RunOptions:
    """How the evaluation is run.

    Attributes:
        device: auto takes a GPU where there is one.
        precision: data type of the networks' arithmetic.
        batch_size: images per batch and process; 0 takes what suits the device.
        memory: MiB for the intermediate values of relational scoring and of neighbor searches; 0
            takes what suits the device.
        cache: folder where features are kept.
        no_cache: neither read nor keep features.
    """

    device: DeviceName = "auto"
    precision: Precision = EvaluatorOptions.precision
    batch_size: int = 0
    memory: int = 0
    cache: Path = Path("runs/features")
    no_cache: bool = False


# Fields come in the reverse order of the bases: those of Subject first.
@dataclass(frozen=True)
class EvaluateConfig(
    RunOptions,
    PreprocessingOptions,
    ReferenceConfig,
    CovarianceOptions,
    ClassifierOptions,
    ScoringOptions,
    NetworkOptions,
    Subject,
):
    """The options of ``evaluate.py``.

    Raises:
        ConfigError: see ``NetworkOptions``.
        ValueError: a value of the preprocessing is out of its range.
    """

    def __post_init__(self) -> None:
        NetworkOptions.__post_init__(self)
        PreprocessingOptions.__post_init__(self)

    def part(self, kind: type[T]) -> T:
        """The dataclass ``kind`` from the options that are its fields."""
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in names})
