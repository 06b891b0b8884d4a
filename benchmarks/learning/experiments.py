"""What is measured on each split: distances, relations on frozen features, fine-tuned backbones."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.learning.features import Source, extractor_of
from benchmarks.learning.scoring import areas_of_distances, areas_of_relation
from benchmarks.learning.splits import Split
from benchmarks.learning.training import Budget, Start, Work, train
from benchmarks.learning.variants import BASE, INDEPENDENT, ON_FROZEN, Variant
from evaluation.extractor import FeatureExtractor
from evaluation.whitening import learn_whitening

WAYS = (BASE, INDEPENDENT)  # in which backbones are fine-tuned


class Measured(NamedTuple):
    """One training on one split.

    Attributes:
        areas: AUROC by evaluator.
        work: what the training took.
    """

    areas: dict[str, float]
    work: Work


class OnSplit(NamedTuple):
    """The results on one split.

    Attributes:
        distances: AUROC by distance, of the published backbone.
        trained: by the variant's name.
    """

    distances: dict[str, float]
    trained: dict[str, Measured]


def starting_point(source: Source, extractor: FeatureExtractor, split: Split) -> Start:
    """The start of the trainings on ``split``."""
    features = extractor.extract(np.arange(len(source.pack.index))).features
    return Start(source, split, features, learn_whitening(extractor, split.training))


def on_frozen_features(source: Source, splits: list[Split], budget: Budget) -> Iterator[OnSplit]:
    """The distances on each split, and each variant of the relation on frozen features."""
    extractor = source.extractor()
    for split in splits:
        start = starting_point(source, extractor, split)
        distances = areas_of_distances(start.features, split, start.whitening)
        trained: dict[str, Measured] = {}
        for variant in ON_FROZEN:
            trained[variant.name] = _frozen(start, variant, budget, trained.get(BASE.name))
            _say(split, variant.name, trained[variant.name].areas)
        yield OnSplit(distances, trained)


def fine_tuned(source: Source, splits: list[Split], budget: Budget) -> Iterator[OnSplit]:
    """The distances on each split, and distances and relation on fine-tuned backbones."""
    extractor = source.extractor(budget.image_size)
    for split in splits:
        start = starting_point(source, extractor, split)
        distances = areas_of_distances(start.features, split, start.whitening)
        trained = {}
        for variant in WAYS:
            trained[variant.name] = _fine_tuned(start, variant, budget)
            _say(split, f"fine-tuned, {variant.name}", trained[variant.name].areas)
        yield OnSplit(distances, trained)


def _frozen(start: Start, variant: Variant, budget: Budget, base: Measured | None) -> Measured:
    """``base`` is the training whose time counts for ``equal time``."""
    seconds = None
    if variant.sampling == "equal time":
        assert base is not None
        seconds = base.work.seconds
    network, work = train(start, variant, budget, seconds)
    return Measured(areas_of_relation(network.relation, start.features, start.split), work)


def _fine_tuned(start: Start, variant: Variant, budget: Budget) -> Measured:
    """The whitening of the distance is that of the fine-tuned features."""
    network, work = train(start, variant, budget)
    split, source = start.split, start.source
    extractor = extractor_of(network, source.pack, source.process)
    features = extractor.extract(split.evaluated).features
    whitening = learn_whitening(extractor, split.training)
    areas = areas_of_distances(features, split, whitening)
    return Measured(areas | areas_of_relation(network.relation, features, split), work)


def _say(split: Split, name: str, areas: dict[str, float]) -> None:
    print(f"split {split.seed}, {name}: {areas['relation-logit']:.3f}", flush=True)
