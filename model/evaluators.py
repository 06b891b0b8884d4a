"""Ways to score test images against references, given only their features.

An evaluator is a function of a ``Scoring`` and its entry in ``EVALUATORS``; ``model.config`` lists
the names for callers that must not import torch. What several evaluators need, such as the logits
to the class means, is a cached property, computed for the first of them.

The class of a test image is that of the nearest prototype or, for the k-NN scores, of the nearest
reference; with a classifier it is that of the largest logit. Scores that need a classifier are in
``model.classifier_scores``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model import distances, scoring
from model.classifier_scores import CLASSIFIER_SCORES, Classified
from model.config import BASELINES, WHITENED_COSINE, EvaluatorOptions
from model.errors import EvaluatorError
from model.image_scores import ImageStatistics
from model.pairwise import relational_logits, relational_tiles
from model.prototypes import class_means, most_significant
from model.relation import RelationalTransformer
from model.whitening import Whitening

_RANKED = 3


@dataclass(frozen=True)
class References:
    """Reference images of the known classes.

    Attributes:
        features: float32 (R, D).
        classes: int64 (R,), 0 .. K-1; each class occurs.
        num_classes: K.
    """

    features: Tensor
    classes: Tensor
    num_classes: int


class Ranking(NamedTuple):
    """The n known classes nearest to each of T test images, nearest first; n is 3, or K if that is
    less.

    Attributes:
        classes: int64 (T, n).
        scores: float32 (T, n), the negative distance or logit, high for near; of the k-NN scores
            that of the nearest reference of the class, or -inf where none is among the k.
    """

    classes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Scores:
    """An evaluator's answer for T test images.

    Attributes:
        normality: float32 (T,), high for known.
        predicted: int64 (T,), the known class that each is nearest to.
        ranking: the nearest known classes.
    """

    normality: Tensor
    predicted: Tensor
    ranking: Ranking


class Scoring:
    """T test images to be scored against references, and intermediate values evaluators share.

    Args:
        relation: the relational module, in evaluation mode; None for a bare backbone.
        references: of the known classes.
        tests: float32 (T, D), the test images' features.
        options: the evaluators' parameters.
        progress: called with the number of relational pairs compared since its last call.
    """

    def __init__(
        self,
        relation: RelationalTransformer | None,
        references: References,
        tests: Tensor,
        options: EvaluatorOptions,
        progress: Callable[[int], object],
    ) -> None:
        self._relation, self.references, self.tests = relation, references, tests
        self.options, self.progress = options, progress

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.options.precision)

    @property
    def relation(self) -> RelationalTransformer:
        """The relational module; EvaluatorError where there is none."""
        if self._relation is None:
            raise EvaluatorError(
                f"a bare backbone has no relational module; choose from {', '.join(BASELINES)}"
            )
        return self._relation

    @property
    def whitening(self) -> Whitening:
        """The options' whitening or else the relation's; EvaluatorError where both have none."""
        stored = None if self._relation is None else self._relation.whitening
        found = self.options.whitening or stored
        if found is None:
            raise EvaluatorError(
                f"{WHITENED_COSINE} needs a whitening: the relational module has none, and the "
                "options give none"
            )
        return found

    @cached_property
    def classified(self) -> Classified:
        """References and tests with the options' classifier; EvaluatorError if they have none."""
        known, classifier = self.references, self.options.classifier
        if classifier is None:
            raise EvaluatorError(
                f"{', '.join(CLASSIFIER_SCORES)} need a classifier of the known classes, and the "
                "options give none"
            )
        images = self.options.images or ImageStatistics()
        return Classified(classifier, known.features, known.classes, self.tests, images)

    @cached_property
    def means(self) -> Tensor:
        """(K, D), the class means of the references."""
        known = self.references
        return class_means(known.features, known.classes, known.num_classes)

    @cached_property
    def logits_to_means(self) -> Tensor:
        """(T, K), relational logits to the class means."""
        return self._logits(self.means)

    @cached_property
    def logits_to_significant(self) -> Tensor:
        """(T, K), the lowest relational logit to any significant reference of each class."""
        known = self.references
        positions, classes = most_significant(
            known.features, known.classes, known.num_classes, self.options.significant
        )
        logits = self._logits(known.features[positions])
        best = logits.new_full((len(logits), known.num_classes), torch.inf)
        return best.scatter_reduce(1, classes.expand_as(logits), logits, "amin")

    def neighbors(self, name: str) -> int:
        """k; EvaluatorError if there are fewer references than evaluator ``name`` needs."""
        count, available = self.options.neighbors, len(self.references.features)
        if not 1 <= count <= available:
            raise EvaluatorError(
                f"{name} needs {count} neighbors, but there are {available} references; "
                f"choose between 1 and {available}"
            )
        return count

    def _logits(self, references: Tensor) -> Tensor:
        return relational_logits(
            self.relation,
            self.tests,
            references,
            memory=self.options.memory,
            dtype=self.dtype,
            progress=self.progress,
        )


def evaluate(
    names: Sequence[str],
    relation: RelationalTransformer | None,
    references: References,
    tests: Tensor,
    options: EvaluatorOptions | None = None,
    *,
    progress: Callable[[int], object] = lambda pairs: None,
) -> dict[str, Scores]:
    """The scores of ``tests`` (T, D) by each of the named evaluators.

    Evaluators that need the same relational pairs share them; ``progress`` is called with the
    number of pairs compared since its last call.

    Raises:
        EvaluatorError: an unknown name, a class without a reference, fewer references than
            neighbors, or a relational evaluator where ``relation`` is None.
    """
    check_names(names)
    run = Scoring(relation, references, tests, options or EvaluatorOptions(), progress)
    with torch.no_grad():
        return {name: EVALUATORS[name].score(run) for name in names}


def check_names(names: Sequence[str]) -> None:
    """Raise EvaluatorError if ``names`` is empty or contains an unknown evaluator."""
    unknown = [name for name in names if name not in EVALUATORS]
    if unknown or not names:
        what = f"no evaluator is called {', '.join(unknown)}" if unknown else "no evaluator given"
        raise EvaluatorError(f"{what}; choose from {', '.join(EVALUATORS)}")


def num_pairs(
    names: Sequence[str], references: References, num_tests: int, options: EvaluatorOptions
) -> int:
    """How many relational pairs ``evaluate`` compares; those that evaluators share count once."""
    columns = {EVALUATORS[name].num_columns for name in names}
    return num_tests * sum(count(references, options) for count in columns)


def relation_softmax(run: Scoring) -> Scores:
    """Relational logits to the class means, largest softmax (the paper's)."""
    return _by_class(scoring.max_softmax(run.logits_to_means), run.logits_to_means)


def relation_logit(run: Scoring) -> Scores:
    """The same logits, largest -z."""
    return _by_class(scoring.max_logit(run.logits_to_means), run.logits_to_means)


def significant_softmax(run: Scoring) -> Scores:
    """Relational logits to the most significant references of each class, largest softmax."""
    return _by_class(scoring.max_softmax(run.logits_to_significant), run.logits_to_significant)


def significant_logit(run: Scoring) -> Scores:
    """The same logits, largest -z."""
    return _by_class(scoring.max_logit(run.logits_to_significant), run.logits_to_significant)


def relation_knn(run: Scoring) -> Scores:
    """Mean of the k best -z over all references, whatever their class."""
    known, tests, count = run.references, run.tests, run.neighbors("relation-knn")
    best = tests.new_full((len(tests), count), torch.inf, dtype=torch.float32)
    nearest = torch.zeros_like(best, dtype=torch.int64)
    for tile in relational_tiles(
        run.relation, tests, known.features, memory=run.options.memory, dtype=run.dtype
    ):
        columns = torch.arange(tile.references.start, tile.references.stop, device=nearest.device)
        values = torch.cat((best[tile.tests], tile.logits), dim=1)
        candidates = torch.cat((nearest[tile.tests], columns.expand_as(tile.logits)), dim=1)
        best[tile.tests], order = torch.topk(values, count, dim=1, largest=False)
        nearest[tile.tests] = candidates.gather(1, order)
        run.progress(tile.logits.numel())
    return _by_neighbor(scoring.mean_of_best(best), best, nearest, known)


def cosine(run: Scoring) -> Scores:
    """Cosine to the nearest class mean."""
    return _nearest(distances.cosine(run.tests, run.means))


def whitened_cosine(run: Scoring) -> Scores:
    """The same after whitening by the within-class covariance of the training features."""
    tests, means = run.whitening(run.tests), run.whitening(run.means)
    return _nearest(distances.cosine(tests, means))


def euclidean(run: Scoring) -> Scores:
    """Distance to the nearest class mean."""
    return _nearest(distances.euclidean(run.tests, run.means))


def mahalanobis(run: Scoring) -> Scores:
    """Mahalanobis distance to the nearest class mean: one covariance, Ledoit-Wolf shrinkage."""
    known = run.references
    return _nearest(distances.mahalanobis(run.tests, known.features, known.classes, run.means))


def mahalanobis_normalized(run: Scoring) -> Scores:
    """The same on L2-normalized features."""
    return _nearest(distances.mahalanobis(*_normalized_with_means(run)))


def relative_mahalanobis(run: Scoring) -> Scores:
    """``mahalanobis`` minus the distance to the mean of all references under their covariance."""
    known = run.references
    return _nearest(
        distances.relative_mahalanobis(run.tests, known.features, known.classes, run.means)
    )


def relative_mahalanobis_normalized(run: Scoring) -> Scores:
    """The same on L2-normalized features."""
    return _nearest(distances.relative_mahalanobis(*_normalized_with_means(run)))


def knn(run: Scoring) -> Scores:
    """Distance to the k-th nearest reference (arXiv 2204.06507)."""
    return _knn(run, "knn", run.references.features, run.tests)


def knn_normalized(run: Scoring) -> Scores:
    """The same on L2-normalized features."""
    return _knn(run, "knn-normalized", *_normalized(run))


def _normalized(run: Scoring) -> tuple[Tensor, Tensor]:
    """References (R, D) and tests (T, D) of length 1."""
    known, tests = (functional.normalize(x, dim=1) for x in (run.references.features, run.tests))
    return known, tests


def _normalized_with_means(run: Scoring) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tests and references of length 1, the references' classes, and the means of these classes."""
    known, tests = _normalized(run)
    classes = run.references.classes
    return tests, known, classes, class_means(known, classes, run.references.num_classes)


def _knn(run: Scoring, name: str, known: Tensor, tests: Tensor) -> Scores:
    found = distances.nearest(tests, known, run.neighbors(name))
    normality = scoring.normality(found.distances[:, -1])
    return _by_neighbor(normality, found.distances, found.positions, run.references)


def _nearest(to_classes: Tensor) -> Scores:
    return _by_class(scoring.max_logit(to_classes), to_classes)


def _by_class(normality: Tensor, to_classes: Tensor) -> Scores:
    return Scores(normality, to_classes.argmin(dim=1), _ranking(to_classes))


def _by_neighbor(
    normality: Tensor, to_nearest: Tensor, positions: Tensor, references: References
) -> Scores:
    """The scores of distances ``to_nearest`` (T, k), ascending, to the references at ``positions``,
    int64 (T, k)."""
    classes = references.classes[positions]
    to_classes = to_nearest.new_full((len(classes), references.num_classes), torch.inf)
    to_classes.scatter_reduce_(1, classes, to_nearest, "amin")
    return Scores(normality, classes[:, 0], _ranking(to_classes))


def _ranking(to_classes: Tensor) -> Ranking:
    """The ranking by distances or logits (T, K) to the classes."""
    count = min(_RANKED, to_classes.shape[1])
    nearest = torch.topk(to_classes, count, dim=1, largest=False)
    return Ranking(nearest.indices, scoring.normality(nearest.values))


def _by_classifier(score: Callable[[Classified], Tensor]) -> "Evaluator":
    return Evaluator(
        lambda run: _by_class(score(run.classified), scoring.normality(run.classified.logits))
    )


def _no_columns(references: References, options: EvaluatorOptions) -> int:
    return 0


def _means(references: References, options: EvaluatorOptions) -> int:
    return references.num_classes


def _significant(references: References, options: EvaluatorOptions) -> int:
    per_class = torch.bincount(references.classes, minlength=references.num_classes)
    return int(per_class.clamp(max=options.significant).sum())


def _all(references: References, options: EvaluatorOptions) -> int:
    return len(references.features)


@dataclass(frozen=True)
class Evaluator:
    """An entry of ``EVALUATORS``.

    Attributes:
        score: computes the scores of all tests.
        num_columns: how many relational pairs it compares per test; evaluators with the same
            function share their pairs.
    """

    score: Callable[[Scoring], Scores]
    num_columns: Callable[[References, EvaluatorOptions], int] = _no_columns


EVALUATORS: dict[str, Evaluator] = {
    "relation-softmax": Evaluator(relation_softmax, _means),
    "relation-logit": Evaluator(relation_logit, _means),
    "significant-softmax": Evaluator(significant_softmax, _significant),
    "significant-logit": Evaluator(significant_logit, _significant),
    "relation-knn": Evaluator(relation_knn, _all),
    "cosine": Evaluator(cosine),
    WHITENED_COSINE: Evaluator(whitened_cosine),
    "euclidean": Evaluator(euclidean),
    "mahalanobis": Evaluator(mahalanobis),
    "mahalanobis-normalized": Evaluator(mahalanobis_normalized),
    "relative-mahalanobis": Evaluator(relative_mahalanobis),
    "relative-mahalanobis-normalized": Evaluator(relative_mahalanobis_normalized),
    "knn": Evaluator(knn),
    "knn-normalized": Evaluator(knn_normalized),
    **{name: _by_classifier(score) for name, score in CLASSIFIER_SCORES.items()},
}
