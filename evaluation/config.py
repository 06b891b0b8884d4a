"""Configuration of an evaluation and the options of ``evaluate.py``; imports nothing slow."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.config import (
    EVALUATORS,
    RENAMED_EVALUATORS,
    EvaluatorOptions,
    Precision,
    PreprocessingOptions,
)
from runtime.command import DeviceName, current_name

RESAMPLES = 1000

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
        seed: random seed of the --shots draw, which restarts for each class.
        with_replacement: draw with replacement, as published few-shot numbers were.
        min_references: refuse a class with fewer references in the protocol.
    """

    shots: int = 0
    seed: int = 0
    with_replacement: bool = False
    min_references: int = 2


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and where the results go.

    Attributes:
        protocol: protocols, such as configs/benchmarks/demo.yaml, or OODDB's, such as ooddb:dtd.
        pack: folder or URL of one pack for all protocols, or of one per data set.
        checkpoint: a run (its newest checkpoint), a step folder, a weights file, or a folder of
            the original's two files.
        lists: folder of the protocols' lists of images; by default that of the YAML file.
        leave_out_rejected: evaluate without the listed images that packing rejected.
        target: a target's name, or all.
        out: folder for the results.
        overwrite: replace the results in --out, if any.
        pack_cache: folder on each node's own disk to which packs at URLs are copied.
    """

    protocol: tuple[str, ...]
    pack: tuple[str, ...]
    checkpoint: Path
    lists: Path | None = None
    leave_out_rejected: bool = False
    target: str = "all"
    out: Path = Path("runs/evaluation")
    overwrite: bool = False
    pack_cache: Path | None = None


@dataclass(frozen=True)
class ScoringOptions:
    """How test images are scored.

    Attributes:
        evaluators: some of relation-softmax, relation-logit, significant-softmax,
            significant-logit, relation-knn, cosine, whitened-cosine, euclidean, mahalanobis,
            mahalanobis-normalized, relative-mahalanobis, relative-mahalanobis-normalized, knn,
            knn-normalized, msp, max-logit, energy, gen, gradnorm, react, vim, nnguide, she, fdbd,
            odin, gram; or all, of which those are left out that lack a whitening or a --classifier.
        significant: references per class for significant-*.
        neighbors: k of the k-NN scores.
        resamples: bootstrap resamples for the AUROC's interval.
    """

    evaluators: tuple[str, ...] = field(
        default=("relation-softmax", "relation-logit", "cosine"), metadata={"type": evaluator_name}
    )
    significant: int = EvaluatorOptions.significant
    neighbors: int = EvaluatorOptions.neighbors
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

    classifier: Literal["head", "full"] | None = None
    budget: int = 100


@dataclass(frozen=True)
class RunOptions:
    """How the evaluation is run.

    Attributes:
        device: auto takes a GPU where there is one.
        precision: data type of the networks' arithmetic.
        batch_size: images per batch and process; 0 takes what suits the device.
        memory: MiB for the intermediate values of relational scoring; 0 takes what suits the
            device.
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
    Subject,
):
    """The options of ``evaluate.py``.

    Raises:
        ValueError: a value of the preprocessing is out of its range.
    """
