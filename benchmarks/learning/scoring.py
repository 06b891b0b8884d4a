"""The AUROC of distances and of relations on a split; known is the positive class."""

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.learning.splits import Split
from evaluation.features import Features
from model.config import EvaluatorOptions
from model.evaluators import References, evaluate
from model.metrics import auroc
from model.relation import RelationalTransformer
from model.whitening import Whitening

NEIGHBORS = 10
DISTANCES = (
    "cosine",
    "whitened-cosine",
    "euclidean",
    "mahalanobis",
    "mahalanobis-normalized",
    "knn",
    "knn-normalized",
)
RELATIONS = ("relation-logit", "relation-softmax")


def areas_of_distances(features: Features, split: Split, whitening: Whitening) -> dict[str, float]:
    """The AUROC of each distance, by name."""
    options = EvaluatorOptions(neighbors=NEIGHBORS, whitening=whitening)
    return _areas(DISTANCES, None, features, split, options)


def areas_of_relation(
    relation: RelationalTransformer, features: Features, split: Split
) -> dict[str, float]:
    """The AUROC of each way to read the relation, by name."""
    return _areas(RELATIONS, relation.eval(), features, split, EvaluatorOptions())


def _areas(
    names: Sequence[str],
    relation: RelationalTransformer | None,
    features: Features,
    split: Split,
    options: EvaluatorOptions,
) -> dict[str, float]:
    known = features.of(split.reference)
    classes = torch.from_numpy(split.reference_class).to(known.device)
    references = References(known, classes, int(classes.max()) + 1)
    scores = evaluate(names, relation, references, features.of(split.tests), options)
    is_known = np.arange(len(split.tests)) < len(split.known)
    return {name: auroc(is_known, scores[name].normality.cpu().numpy()) for name in names}
