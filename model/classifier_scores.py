"""Scores of test images by a linear classifier of the known classes, high for known.

A score is a function of ``Classified`` and its entry in ``CLASSIFIER_SCORES``; ``guided_energy``
reads the result of a search as well. Each is a published detector with the parameters that its
authors recommend.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from model.classifier import LinearClassifier
from model.errors import EvaluatorError
from model.image_scores import ODIN_TEMPERATURE, ImageStatistics
from model.neighbors import Best, Criterion
from model.prototypes import class_means

_GEN_CLASSES, _GEN_GAMMA = 100, 0.1
_REACT_PERCENTILE = 90
_NNGUIDE_NEIGHBORS = 10
_TINY = 1e-12  # the least length that features are divided by


@dataclass(frozen=True)
class Classified:
    """T tests and R references of K classes, with a classifier of these classes on their features.

    Attributes:
        classifier: on features of width D.
        references: float32 (R, D).
        classes: int64 (R,), those of the references.
        tests: float32 (T, D).
        images: what odin and gram read of the tests' images.
    """

    classifier: LinearClassifier
    references: Tensor
    classes: Tensor
    tests: Tensor
    images: ImageStatistics = field(default_factory=ImageStatistics)

    @cached_property
    def logits(self) -> Tensor:
        """(T, K), of the tests; EvaluatorError where one is not finite."""
        return self._finite(self.tests)

    @cached_property
    def reference_logits(self) -> Tensor:
        """(R, K), of the references; EvaluatorError where one is not finite."""
        return self._finite(self.references)

    @property
    def predicted(self) -> Tensor:
        """int64 (T,), the class of each test's largest logit."""
        return self.logits.argmax(dim=1)

    def _finite(self, features: Tensor) -> Tensor:
        logits = self.classifier.logits(features)
        broken = int((~torch.isfinite(logits).all(dim=1)).sum())
        if broken:
            raise EvaluatorError(
                f"the classifier gives NaN or infinite logits for {broken} of {len(logits)} "
                "images; its training has diverged, train it with fewer steps"
            )
        return logits


def max_softmax(run: Classified) -> Tensor:
    """The largest softmax probability (arXiv 1610.02136)."""
    return run.logits.softmax(dim=1).amax(dim=1)


def max_logit(run: Classified) -> Tensor:
    """The largest logit (arXiv 1911.11132)."""
    return run.logits.amax(dim=1)


def energy(run: Classified) -> Tensor:
    """The negative free energy, log sum exp of the logits (arXiv 2010.03759)."""
    return run.logits.logsumexp(dim=1)


def generalized_entropy(run: Classified) -> Tensor:
    """-sum over the 100 most likely classes of (p (1 - p))^0.1 (GEN, Liu et al., CVPR 2023)."""
    probabilities = run.logits.softmax(dim=1)
    count = min(_GEN_CLASSES, probabilities.shape[1])
    likely = probabilities.topk(count, dim=1).values
    return -(likely * (1 - likely)).clamp_min(0).pow(_GEN_GAMMA).sum(dim=1)


def gradient_norm(run: Classified) -> Tensor:
    """L1 norm of the gradient of KL(uniform || softmax) by the classifier's weight matrix
    (arXiv 2110.00218), in closed form: that gradient is the outer product of softmax - 1/K and the
    feature."""
    probabilities = run.logits.softmax(dim=1)
    by_logits = (probabilities - 1 / probabilities.shape[1]).abs().sum(dim=1)
    return by_logits * run.tests.abs().sum(dim=1)


def clipped_energy(run: Classified) -> Tensor:
    """``energy`` of the features clipped at the 90th percentile of all values of the references'
    features (ReAct, arXiv 2111.12797)."""
    limit = float(np.percentile(run.references.cpu().numpy(), _REACT_PERCENTILE))
    return run.classifier.logits(run.tests.clamp(max=limit)).logsumexp(dim=1)


def virtual_logit(run: Classified) -> Tensor:
    """``energy`` minus a virtual logit, the scaled norm of what a feature has outside the principal
    space of the references' features (ViM, arXiv 2203.10807).

    The origin is the feature whose logits are zero. The principal space has 1000 dimensions for
    D >= 2048, 512 for D >= 768, else D / 2, but never more than half the number of references. The
    scale makes the mean virtual logit of the references that of their largest logits.
    """
    weight, bias = run.classifier.weight.double(), run.classifier.bias.double()
    # The rows of a softmax classifier may sum to zero but for float32 rounding.
    rounding = torch.finfo(torch.float32).eps
    origin = -torch.linalg.pinv(weight, rtol=rounding * max(weight.shape)) @ bias
    known, tests = (features.double() - origin for features in (run.references, run.tests))
    width = known.shape[1]
    size = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
    # Ascending: the last columns are the principal directions.
    directions = torch.linalg.eigh(known.T @ known / len(known)).eigenvectors
    beside = directions[:, : width - min(size, len(known) // 2)]
    residual = (known @ beside).norm(dim=1).mean()
    if not residual > rounding * known.norm(dim=1).mean():
        raise EvaluatorError(
            "the references differ in too few ways, so there is no virtual logit for vim; give "
            "more references or leave it out"
        )
    scale = run.reference_logits.amax(dim=1).double().mean() / residual
    return (run.logits.logsumexp(dim=1) - scale * (tests @ beside).norm(dim=1)).float()


def guides(run: Classified) -> Criterion:
    """The references that guide ``guided_energy``: the 10 with the largest product of their energy
    and their cosine to the test."""
    energies = run.reference_logits.logsumexp(dim=1)
    lengths = run.references.norm(dim=1).clamp_min(_TINY)
    return Criterion(
        energies / lengths, torch.zeros_like(lengths), min(_NNGUIDE_NEIGHBORS, len(lengths))
    )


def guided_energy(run: Classified, guided: Best) -> Tensor:
    """``energy`` times the mean of these products (NNGuide, arXiv 2309.14888).

    Args:
        run: tests and references.
        guided: by ``guides``.
    """
    lengths = run.tests.norm(dim=1).clamp_min(_TINY)
    return energy(run) * guided.values.mean(dim=1) / lengths


def stored_pattern(run: Classified) -> Tensor:
    """Inner product with the mean feature of the predicted class's references, of those that the
    classifier gets right if there are any (SHE, Zhang et al., ICLR 2023)."""
    num_classes = run.logits.shape[1]
    right = run.reference_logits.argmax(dim=1) == run.classes
    none_right = torch.bincount(run.classes[right], minlength=num_classes) == 0
    taken = right | none_right[run.classes]
    patterns = class_means(run.references[taken], run.classes[taken], num_classes)
    return (run.tests * patterns[run.predicted]).sum(dim=1)


def boundary_distance(run: Classified) -> Tensor:
    """Mean distance to the decision boundaries of the predicted class, divided by the distance to
    the mean of the references (fDBD, arXiv 2312.11536)."""
    weight, logits = run.classifier.weight, run.logits
    between = torch.cdist(weight, weight)[run.predicted]
    lead = logits.amax(dim=1, keepdim=True) - logits
    tiny = torch.finfo(logits.dtype).tiny  # two equal classes have no boundary, and no lead
    to_boundaries = (lead / between.clamp_min(tiny)).sum(dim=1) / (logits.shape[1] - 1)
    center = run.references.double().mean(dim=0).float()
    return to_boundaries / (run.tests - center).norm(dim=1).clamp_min(tiny)


def perturbed_softmax(run: Classified) -> Tensor:
    """The largest softmax probability at temperature 1000 of the perturbed image (ODIN, arXiv
    1706.02690); EvaluatorError where there is none."""
    logits = run.classifier.logits(_of_images(run.images.perturbed, "odin"))
    return (logits.double() / ODIN_TEMPERATURE).softmax(dim=1).amax(dim=1).float()


def gram_deviation(run: Classified) -> Tensor:
    """Minus the sum over the hidden layers of how far the Gram matrices are outside their bounds
    (arXiv 1912.12510); EvaluatorError where there are none."""
    return -_of_images(run.images.deviations, "gram").sum(dim=1)


def _of_images(given: Tensor | None, name: str) -> Tensor:
    if given is None:
        raise EvaluatorError(
            f"{name} needs images and a classifier that was trained with its backbone; features "
            "and a linear classifier do not do"
        )
    return given


CLASSIFIER_SCORES: dict[str, Callable[[Classified], Tensor]] = {
    "msp": max_softmax,
    "max-logit": max_logit,
    "energy": energy,
    "gen": generalized_entropy,
    "gradnorm": gradient_norm,
    "react": clipped_energy,
    "vim": virtual_logit,
    "she": stored_pattern,
    "fdbd": boundary_distance,
    "odin": perturbed_softmax,
    "gram": gram_deviation,
}
