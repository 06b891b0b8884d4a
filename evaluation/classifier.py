"""The classifier of the known classes that a target is scored with."""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from evaluation.config import ClassifierOptions
from evaluation.extractor import FeatureExtractor
from evaluation.fine_tuning import fine_tune
from evaluation.image_statistics import image_statistics
from evaluation.protocol import ProtocolRows
from model.classifier import train_classifier
from model.config import EvaluatorOptions
from model.evaluators import References


class EvaluatorInput(NamedTuple):
    """What evaluators compare.

    Attributes:
        references: all of a target.
        tests: float32 (n, D), the features of this process's share of the tests.
        options: the evaluators' parameters, with the classifier if there is one.
    """

    references: References
    tests: Tensor
    options: EvaluatorOptions


def with_classifier(
    given: EvaluatorInput,
    rows: ProtocolRows,
    own_tests: np.ndarray,
    extractor: FeatureExtractor,
    options: ClassifierOptions,
    evaluators: Collection[str],
) -> EvaluatorInput:
    """``given`` with a classifier that is trained on its references; all processes call it.

    After fine-tuning, the features are those of the trained backbone.

    Args:
        given: with the features of ``extractor``.
        rows: of the target.
        own_tests: int64 (n,), the rows of this process's share of the tests.
        extractor: of the pack.
        options: what is trained; without a classifier, ``given`` is returned as it is.
        evaluators: names of those that will be computed.

    Raises:
        EvaluatorError: there is only one known class, or the training has diverged.
        ConfigError: see ``fine_tune`` and ``image_statistics``.
        PackError: an image is damaged.
    """
    known = given.references
    if options.classifier is None:
        return given
    if options.classifier == "head":
        trained = train_classifier(known.features, known.classes, known.num_classes, options.budget)
        return given._replace(options=replace(given.options, classifier=trained))
    tuned = fine_tune(extractor, rows.reference, known.classes, known.num_classes, options.budget)
    everything = np.unique(np.concatenate((rows.reference, rows.test)))
    features = tuned.extractor.extract(everything).features
    images = image_statistics(tuned, rows, own_tests, evaluators)
    return EvaluatorInput(
        replace(known, features=features.of(rows.reference)),
        features.of(own_tests),
        replace(given.options, classifier=tuned.classifier, images=images),
    )
