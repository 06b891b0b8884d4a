"""Ways to score test images against references. All need nothing but features.

==================== ==========================================================================
relation-softmax     relational logits to the class means, largest softmax (the paper's)
relation-logit       the same logits, largest -z
significant-softmax  relational logits to the n most significant references of each class
significant-logit    the same logits, largest -z
relation-knn         mean of the k best -z over all references, whatever their class
cosine               cosine to the nearest class mean
euclidean            distance to the nearest class mean
mahalanobis          the same under a shared, shrunk covariance
knn                  distance to the k-th nearest reference (arXiv 2204.06507)
knn-normalised       the same on L2-normalised features
==================== ==========================================================================

Those below ``relation-knn`` use the backbone's features alone. The class of a test image is that
of the nearest prototype or, for the three k-NN scores, of the nearest reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model import distances, scoring
from model.config import EVALUATORS
from model.errors import EvaluatorError
from model.pairwise import relational_logits, relational_tiles
from model.prototypes import class_means, most_significant
from model.relation import RelationalTransformer


@dataclass(frozen=True)
class References:
    """What the known classes look like.

    Attributes:
        features: float32 (R, D).
        classes: int64 (R,), 0 .. K-1; each class occurs.
        num_classes: K.
    """

    features: Tensor
    classes: Tensor
    num_classes: int


@dataclass(frozen=True)
class Scores:
    """What an evaluator says of T test images.

    Attributes:
        normality: float32 (T,), high for known.
        predicted: int64 (T,), the known class that each is nearest to.
    """

    normality: Tensor
    predicted: Tensor


@dataclass(frozen=True)
class EvaluatorOptions:
    """Numbers that the evaluators take.

    Attributes:
        significant: n, references a class for ``significant-*``.
        neighbours: k of the k-NN scores.
        memory: bytes for the intermediate values of relational scoring; None takes
            ``model.pairwise.tile_memory`` of the device.
        dtype: of the relational module's matrix products.
    """

    significant: int = 5
    neighbours: int = 50
    memory: int | None = None
    dtype: torch.dtype = torch.float32


def evaluate(
    names: Sequence[str],
    relation: RelationalTransformer,
    references: References,
    tests: Tensor,
    options: EvaluatorOptions | None = None,
    *,
    progress: Callable[[int], object] = lambda pairs: None,
) -> dict[str, Scores]:
    """The scores of ``tests`` (T, D) by each of the named evaluators.

    Evaluators that need the same logits share them. ``progress`` is told of every relational pair.

    Raises:
        EvaluatorError: an unknown name, a class without reference, or fewer references than
            neighbours.
    """
    options = options or EvaluatorOptions()
    check_names(names)
    run = _Run(relation, references, tests, options, progress)
    with torch.no_grad():
        found = {
            key: value for family in _families(names) for key, value in run.family(family).items()
        }
    return {name: found[name] for name in names}


def check_names(names: Sequence[str]) -> None:
    """EvaluatorError where ``names`` is empty or holds one that is no evaluator."""
    unknown = [name for name in names if name not in EVALUATORS]
    if unknown or not names:
        what = f"no evaluator is called {', '.join(unknown)}" if unknown else "no evaluator given"
        raise EvaluatorError(f"{what}; choose from {', '.join(EVALUATORS)}")


def num_pairs(
    names: Sequence[str], references: References, num_tests: int, options: EvaluatorOptions
) -> int:
    """How many relational pairs ``evaluate`` compares."""
    per_class = torch.bincount(references.classes, minlength=references.num_classes)
    columns = {
        "relation": references.num_classes,
        "significant": int(per_class.clamp(max=options.significant).sum()),
        "relation-knn": len(references.features),
    }
    return num_tests * sum(columns.get(family, 0) for family in _families(names))


def _families(names: Sequence[str]) -> list[str]:
    """The names, with one entry for those that are two readings of the same logits."""
    readings = ("-softmax", "-logit")
    return list(
        dict.fromkeys(name.rsplit("-", 1)[0] if name.endswith(readings) else name for name in names)
    )


@dataclass(frozen=True)
class _Run:
    relation: RelationalTransformer
    references: References
    tests: Tensor
    options: EvaluatorOptions
    progress: Callable[[int], object]

    def family(self, name: str) -> dict[str, Scores]:
        if name in ("relation", "significant"):
            logits = self._relation() if name == "relation" else self._significant()
            return {
                f"{name}-softmax": _by_class(scoring.max_softmax(logits), logits),
                f"{name}-logit": _by_class(scoring.max_logit(logits), logits),
            }
        if name == "relation-knn":
            return {name: self._relation_knn()}
        if name in ("knn", "knn-normalised"):
            return {name: self._knn(normalised=name == "knn-normalised")}
        values = self._prototype_distances(name)
        return {name: _by_class(scoring.max_logit(values), values)}

    def _means(self) -> Tensor:
        known = self.references
        return class_means(known.features, known.classes, known.num_classes)

    def _logits(self, references: Tensor) -> Tensor:
        return relational_logits(
            self.relation,
            self.tests,
            references,
            memory=self.options.memory,
            dtype=self.options.dtype,
            progress=self.progress,
        )

    def _relation(self) -> Tensor:
        return self._logits(self._means())

    def _significant(self) -> Tensor:
        known = self.references
        positions, classes = most_significant(
            known.features, known.classes, known.num_classes, self.options.significant
        )
        logits = self._logits(known.features[positions])
        best = logits.new_full((len(logits), known.num_classes), torch.inf)
        return best.scatter_reduce(1, classes.expand_as(logits), logits, "amin")

    def _relation_knn(self) -> Scores:
        known, count = self.references, self._neighbours("relation-knn")
        best = self.tests.new_full((len(self.tests), count), torch.inf, dtype=torch.float32)
        place = torch.zeros_like(best, dtype=torch.int64)
        for tile in relational_tiles(
            self.relation,
            self.tests,
            known.features,
            memory=self.options.memory,
            dtype=self.options.dtype,
        ):
            columns = torch.arange(tile.references.start, tile.references.stop, device=place.device)
            values = torch.cat((best[tile.tests], tile.logits), dim=1)
            places = torch.cat((place[tile.tests], columns.expand_as(tile.logits)), dim=1)
            best[tile.tests], order = torch.topk(values, count, dim=1, largest=False)
            place[tile.tests] = places.gather(1, order)
            self.progress(tile.logits.numel())
        return Scores(scoring.mean_of_best(best), known.classes[place[:, 0]])

    def _knn(self, *, normalised: bool) -> Scores:
        known, tests = self.references.features, self.tests
        if normalised:
            known, tests = functional.normalize(known, dim=1), functional.normalize(tests, dim=1)
        values, places = distances.nearest(tests, known, self._neighbours("knn"))
        return Scores(scoring.normality(values[:, -1]), self.references.classes[places[:, 0]])

    def _neighbours(self, name: str) -> int:
        count, available = self.options.neighbours, len(self.references.features)
        if not 1 <= count <= available:
            raise EvaluatorError(
                f"{name} wants {count} neighbours of {available} references; "
                f"choose between 1 and {available}"
            )
        return count

    def _prototype_distances(self, name: str) -> Tensor:
        known, means = self.references, self._means()
        if name == "cosine":
            return distances.cosine(self.tests, means)
        if name == "euclidean":
            return distances.euclidean(self.tests, means)
        return distances.mahalanobis(self.tests, known.features, known.classes, means)


def _by_class(normality: Tensor, distances_to_classes: Tensor) -> Scores:
    return Scores(normality, distances_to_classes.argmin(dim=1))
