"""Learns the whitening of a backbone's features from the images of a pack."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.extractor import FeatureExtractor
from model.errors import ModelError
from model.prototypes import class_means
from model.whitening import ResidualMoments, Whitening, whitening
from runtime.errors import PackError
from runtime.gather import chunk_of

# Fifty images for each of 2,048 dimensions; more change the covariance less than its shrinkage
# does, and the million of ImageNet would take hours on a CPU.
MAX_IMAGES = 100_000


@dataclass(frozen=True)
class LabeledFeatures:
    """Features of training images, the same on all processes.

    Attributes:
        features: float32 (N, D).
        classes: int64 (N,), 0 .. C-1; each occurs.
    """

    features: Tensor
    classes: Tensor


def labeled_features(extractor: FeatureExtractor, rows: np.ndarray) -> LabeledFeatures:
    """The features of some images of the extractor's pack; every process extracts its share.

    Args:
        extractor: of the network whose features these are.
        rows: int64 (N,) ascending; of more than ``MAX_IMAGES``, every class gives as many of its
            images as fit, evenly spaced.

    Raises:
        PackError: an image is damaged, or there is none.
        CheckpointError: a feature is not finite.
    """
    labels = extractor.pack.index.label
    rows = _evenly(rows, labels[rows])
    if not len(rows):
        raise PackError(f"{extractor.pack.path}: no image is selected to learn a covariance from")
    features = extractor.extract(rows).features.values
    _, numbers = np.unique(labels[rows], return_inverse=True)
    return LabeledFeatures(features, torch.from_numpy(numbers).to(features.device))


def learn_whitening(extractor: FeatureExtractor, rows: np.ndarray) -> Whitening:
    """The whitening by the within-class covariance of images of the extractor's pack.

    Raises:
        PackError, CheckpointError: see ``labeled_features`` and ``whitening_of``.
    """
    return whitening_of(extractor, labeled_features(extractor, rows))


def whitening_of(extractor: FeatureExtractor, labeled: LabeledFeatures) -> Whitening:
    """The whitening by the within-class covariance of features of the extractor's pack.

    Every process sums over its share of the residuals; all return the same map, whatever their
    number, but for the rounding of float64 sums.

    Raises:
        PackError: the features of a class do not differ enough.
    """
    features, classes = labeled.features, labeled.classes
    means = class_means(features, classes, int(classes.max()) + 1)
    own = chunk_of(len(features), extractor.process).slice
    moments = ResidualMoments.of(features[own], classes[own], means)
    for values in (moments.count, moments.scatter, moments.fourth):
        extractor.process.sum_(values)
    try:
        return whitening(features.double().mean(dim=0), moments)
    except ModelError as error:
        raise PackError(f"{extractor.pack.path}: {error}") from error


def _evenly(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """At most ``MAX_IMAGES`` of ``rows``, as many of each class as of the others where it has as
    many; at least two of each."""
    if len(rows) <= MAX_IMAGES:
        return rows
    classes, counts = np.unique(labels, return_counts=True)
    each = max(2, MAX_IMAGES // len(classes))
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [
        members[np.linspace(0, len(members) - 1, min(each, len(members))).astype(int)]
        for members in by_class
    ]
    return np.sort(rows[np.concatenate(chosen)])
