"""Test images to be scored against references, and the values that several evaluators read."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from model import distances
from model.classifier_scores import Classified, guides
from model.config import BASELINES, NEED_CLASSIFIER, WHITENED_COSINE, EvaluatorOptions
from model.errors import EvaluatorError
from model.feature_space import FeatureSpace, References
from model.image_scores import ImageStatistics
from model.neighbors import (
    Best,
    Criterion,
    Nearest,
    best_references,
    by_cosine,
    by_distance,
    nearest,
)
from model.pairwise import relational_logits, selected_pairs, tile_memory
from model.prototypes import most_significant
from model.relation import RelationalTransformer
from model.whitening import Whitening


class Scoring:
    """T test images to be scored against references, and intermediate values evaluators share.

    Args:
        relation: the relational module, in evaluation mode; None for a bare backbone.
        references: of the known classes.
        tests: float32 (T, D), the test images' features.
        options: the evaluators' parameters.
        names: of all evaluators that will be computed.
        progress: called with the number of relational pairs compared since its last call.
    """

    def __init__(
        self,
        relation: RelationalTransformer | None,
        references: References,
        tests: Tensor,
        options: EvaluatorOptions,
        names: Sequence[str],
        progress: Callable[[int], object],
    ) -> None:
        self._relation, self.references, self.tests = relation, references, tests
        self.options, self.names, self.progress = options, names, progress
        self.raw = FeatureSpace(tests, references)
        self.normalized = FeatureSpace(tests, references, normalized=True)

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
                f"{', '.join(NEED_CLASSIFIER)} need a classifier of the known classes, and the "
                "options give none"
            )
        images = self.options.images or ImageStatistics()
        return Classified(classifier, known.features, known.classes, self.tests, images)

    @cached_property
    def best(self) -> dict[str, Best]:
        """The best references of the tests for each of the evaluators that search for some."""
        known = self.references.features
        criteria: dict[str, Criterion] = {}
        if "knn" in self.names:
            criteria["knn"] = by_distance(known, self.num_neighbors("knn"))
        if "knn-normalized" in self.names:
            criteria["knn-normalized"] = by_cosine(known, self.num_neighbors("knn-normalized"))
        if "nnguide" in self.names:
            criteria["nnguide"] = guides(self.classified)
        return best_references(self.tests, known, criteria, self._memory)

    def nearest(self, name: str) -> Nearest:
        """The nearest references by ``knn`` or ``knn-normalized``."""
        return nearest(
            self.tests,
            self.references.features,
            self.best[name],
            self.num_neighbors(name),
            normalized=name == "knn-normalized",
            memory=self._memory,
        )

    @cached_property
    def logits_to_means(self) -> Tensor:
        """(T, K), relational logits to the class means; infinite to classes beyond the top."""
        return self._logits(self.raw.means, self._top)

    @cached_property
    def logits_to_significant(self) -> Tensor:
        """(T, K), the lowest relational logit to any significant reference of each class; infinite
        to classes beyond the top."""
        known = self.references
        positions, classes = most_significant(
            known.features, known.classes, known.num_classes, self.options.significant
        )
        compared = None if self._top is None else self._top[:, classes]
        logits = self._logits(known.features[positions], compared)
        best = logits.new_full((len(logits), known.num_classes), torch.inf)
        return best.scatter_reduce(1, classes.expand_as(logits), logits, "amin")

    def num_neighbors(self, name: str) -> int:
        """k; EvaluatorError if there are fewer references than evaluator ``name`` needs."""
        count, available = self.options.neighbors, len(self.references.features)
        if not 1 <= count <= available:
            raise EvaluatorError(
                f"{name} needs {count} neighbors, but there are {available} references; "
                f"set neighbors between 1 and {available}"
            )
        return count

    @cached_property
    def _top(self) -> Tensor | None:
        """bool (T, K), the classes nearest to each test by cosine, as many as the options say; None
        if that is all of them."""
        count, num_classes = self.options.top, self.references.num_classes
        check_top(count, num_classes)
        if count in (None, num_classes):
            return None
        to_means = distances.cosine(self.tests, self.raw.means)
        order = to_means.topk(count, dim=1, largest=False).indices
        return torch.zeros_like(to_means, dtype=torch.bool).scatter_(1, order, True)

    @property
    def _memory(self) -> int:
        given = self.options.memory
        return tile_memory(self.tests.device) if given is None else given

    def _logits(self, references: Tensor, compared: Tensor | None) -> Tensor:
        """Relational logits (T, M) to ``references`` (M, D), all or those that are ``compared``,
        bool (T, M)."""
        memory, dtype, relation = self.options.memory, self.dtype, self.relation
        if compared is None:
            return relational_logits(
                relation, self.tests, references, memory=memory, dtype=dtype, progress=self.progress
            )
        logits = self.tests.new_full(compared.shape, torch.inf, dtype=torch.float32)
        for pairs in selected_pairs(
            relation, self.tests, references, compared, memory=memory, dtype=dtype
        ):
            logits[pairs.tests, pairs.references] = pairs.logits
            self.progress(len(pairs.logits))
        return logits


def check_top(count: int | None, num_classes: int) -> None:
    """Raise EvaluatorError if there are fewer classes than the option ``top`` asks for."""
    if count is not None and not 1 <= count <= num_classes:
        raise EvaluatorError(
            f"top is {count}, but there are {num_classes} known classes; choose between 1 and "
            f"{num_classes}"
        )


def check_distinguishes(evaluator: str, num_classes: int) -> None:
    """Raise EvaluatorError if a score of the softmax over ``num_classes`` is the same for every
    image."""
    if evaluator == "relation-softmax" and num_classes == 1:
        raise EvaluatorError(
            "relation-softmax over one class is 1 for every image, known or not; compare with more "
            "classes, or by relation-logit"
        )
