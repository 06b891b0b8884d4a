"""Ways to score test images against references, given only their features.

An evaluator is a function of a ``Scoring`` and its entry in ``EVALUATORS``; ``model.config`` lists
the names for callers that must not import torch. What several evaluators need is in
``model.intermediates``, where it is computed for the first of them.

The class of a test image is that of the nearest prototype or, for the k-NN scores, of the nearest
reference; with a classifier it is that of the largest logit. Scores that need a classifier are in
``model.classifier_scores``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model import distances, scoring
from model.classifier_scores import CLASSIFIER_SCORES, Classified, guided_energy
from model.config import NEED_CLASSIFIER, WHITENED_COSINE, EvaluatorOptions
from model.errors import EvaluatorError
from model.feature_space import References
from model.intermediates import Scoring, check_top
from model.neighbors import Nearest
from model.pairwise import relational_tiles
from model.relation import RelationalTransformer

_RANKED = 3


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
    run = Scoring(relation, references, tests, options or EvaluatorOptions(), names, progress)
    with torch.no_grad():
        return {name: EVALUATORS[name].score(run) for name in names}


def check_names(names: Sequence[str]) -> None:
    """Raise EvaluatorError if ``names`` is empty or contains an unknown evaluator."""
    unknown = [name for name in names if name not in EVALUATORS]
    if unknown or not names:
        what = f"no evaluator is called {', '.join(unknown)}" if unknown else "no evaluator given"
        raise EvaluatorError(f"{what}; choose from {', '.join(EVALUATORS)}")


def num_pairs(
    names: Sequence[str], classes: Tensor, num_tests: int, options: EvaluatorOptions
) -> int:
    """How many relational pairs ``evaluate`` compares; those that evaluators share count once.

    With ``options.top``, those of ``significant-*`` are the most that there may be: each test's
    nearest classes are taken for those with the most references.

    Args:
        names: of the evaluators.
        classes: int64 (R,), of the references.
        num_tests: T.
        options: of the evaluators.
    """
    check_top(options.top, int(classes.max()) + 1)
    columns = {EVALUATORS[name].num_columns for name in names}
    return num_tests * sum(count(classes, options) for count in columns)


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
    known, tests, count = run.references, run.tests, run.num_neighbors("relation-knn")
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
    return _nearest(distances.cosine(run.tests, run.raw.means))


def whitened_cosine(run: Scoring) -> Scores:
    """The same after whitening by the within-class covariance of the training features."""
    tests, means = run.whitening(run.tests), run.whitening(run.raw.means)
    return _nearest(distances.cosine(tests, means))


def euclidean(run: Scoring) -> Scores:
    """Distance to the nearest class mean."""
    return _nearest(distances.euclidean(run.tests, run.raw.means))


def mahalanobis(run: Scoring) -> Scores:
    """Mahalanobis distance to the nearest class mean: one covariance, Ledoit-Wolf shrinkage."""
    return _nearest(run.raw.to_means.float())


def mahalanobis_normalized(run: Scoring) -> Scores:
    """The same on L2-normalized features."""
    return _nearest(run.normalized.to_means.float())


def relative_mahalanobis(run: Scoring) -> Scores:
    """``mahalanobis`` minus the distance to the mean of all references under their covariance."""
    return _nearest((run.raw.to_means - run.raw.to_center).float())


def relative_mahalanobis_normalized(run: Scoring) -> Scores:
    """The same on L2-normalized features."""
    return _nearest((run.normalized.to_means - run.normalized.to_center).float())


def knn(run: Scoring) -> Scores:
    """Distance to the k-th nearest reference (arXiv 2204.06507)."""
    return _knn(run, run.nearest("knn"))


def knn_normalized(run: Scoring) -> Scores:
    """The same on L2-normalized features."""
    return _knn(run, run.nearest("knn-normalized"))


def nnguide(run: Scoring) -> Scores:
    """``model.classifier_scores.guided_energy``."""
    return _by_classifier(run, guided_energy(run.classified, run.best["nnguide"]))


def _knn(run: Scoring, found: Nearest) -> Scores:
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


def _by_classifier(run: Scoring, normality: Tensor) -> Scores:
    return _by_class(normality, scoring.normality(run.classified.logits))


def _classifier_score(score: Callable[[Classified], Tensor]) -> Callable[[Scoring], Scores]:
    return lambda run: _by_classifier(run, score(run.classified))


def _no_columns(classes: Tensor, options: EvaluatorOptions) -> int:
    return 0


def _means(classes: Tensor, options: EvaluatorOptions) -> int:
    num_classes = int(classes.max()) + 1
    return options.top or num_classes


def _significant(classes: Tensor, options: EvaluatorOptions) -> int:
    per_class = torch.bincount(classes).clamp(max=options.significant)
    return int(per_class.topk(options.top or len(per_class)).values.sum())


def _all(classes: Tensor, options: EvaluatorOptions) -> int:
    return len(classes)


@dataclass(frozen=True)
class Evaluator:
    """An entry of ``EVALUATORS``.

    Attributes:
        score: computes the scores of all tests.
        num_columns: how many relational pairs it compares per test, at most, given the references'
            classes; evaluators with the same function share their pairs.
    """

    score: Callable[[Scoring], Scores]
    num_columns: Callable[[Tensor, EvaluatorOptions], int] = _no_columns


_OF_CLASSIFIER = {name: _classifier_score(score) for name, score in CLASSIFIER_SCORES.items()}
_OF_CLASSIFIER["nnguide"] = nnguide

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
    **{name: Evaluator(_OF_CLASSIFIER[name]) for name in NEED_CLASSIFIER},
}
