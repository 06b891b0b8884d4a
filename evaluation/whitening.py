"""Learns the whitening of a backbone's features from the images of a pack."""

import numpy as np
import torch

from evaluation.extractor import FeatureExtractor
from model.errors import ModelError
from model.prototypes import class_means
from model.whitening import ResidualMoments, Whitening, whitening
from runtime.errors import PackError
from runtime.gather import chunk_of

# Fifty images for each of 2,048 dimensions; more change the covariance less than its shrinkage
# does, and the million of ImageNet would take hours on a CPU.
MAX_IMAGES = 100_000


def learn_whitening(extractor: FeatureExtractor, rows: np.ndarray) -> Whitening:
    """The whitening by the within-class covariance of some images of the extractor's pack.

    Every process extracts its share of the features and sums over its share of the residuals; all
    return the same map, whatever their number, but for the rounding of float64 sums.

    Args:
        extractor: of the network whose features are whitened.
        rows: int64 (N,) ascending; of more than ``MAX_IMAGES``, every class gives as many of its
            images as fit, evenly spaced.

    Raises:
        PackError: an image is damaged, or the features of a class do not differ enough.
        CheckpointError: a feature is not finite.
    """
    labels = extractor.pack.index.label
    rows = _evenly(rows, labels[rows])
    if not len(rows):
        raise PackError(f"{extractor.pack.path}: no image is selected to learn a covariance from")
    features = extractor.extract(rows).features.values
    _, numbers = np.unique(labels[rows], return_inverse=True)
    classes = torch.from_numpy(numbers).to(features.device)
    means = class_means(features, classes, int(numbers.max()) + 1)
    own = chunk_of(len(rows), extractor.process).slice
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
