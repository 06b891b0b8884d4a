"""A known/novel decision for a classifier of your own.

detector = NoveltyDetector(network).fit(images, classes)
detector.choose_threshold(held_out_images, recall=0.95)
answer = torch.where(detector.is_known(batch), my_classifier(batch).argmax(dim=1), -1)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import EvaluatorOptions
from model.evaluators import References, Scores, check_names, evaluate
from model.network import BareBackbone, ReSeND
from model.transform import prepare

Images = Tensor | Sequence[Tensor]


class NoveltyDetector:
    """Compares images with references of the known classes, without any further training.

    It takes N images as a sequence of uint8 (3, H, W), RGB and of any sizes, which it prepares as
    the network's preprocessing says; as float (N, 3, S, S), prepared by ``model.transform.prepare``
    or a loader; or as features (N, D) of the network's backbone.

    Args:
        network: a trained network or a bare backbone; it is put into evaluation mode.
        evaluator: one of ``model.evaluators.EVALUATORS``.
        options: the evaluator's parameters.
        batch_size: images that go through the backbone at a time.

    Attributes:
        threshold: the lowest normality that counts as known; None until it is chosen or set.

    Raises:
        ValueError: there is no such evaluator.
    """

    def __init__(
        self,
        network: ReSeND | BareBackbone,
        evaluator: str = "relation-logit",
        options: EvaluatorOptions | None = None,
        batch_size: int = 64,
    ) -> None:
        check_names([evaluator])
        self.threshold: float | None = None
        self._network = network.eval()
        self._evaluator = evaluator
        self._options = options or EvaluatorOptions()
        self._batch_size = batch_size
        self._references: References | None = None

    def fit(self, inputs: Images, classes: Tensor) -> "NoveltyDetector":
        """Take the references: images or features and their classes, int64 (N,), 0 .. K-1.

        Raises:
            ValueError: a class below the largest has no reference, or the numbers differ.
        """
        if len(inputs) != len(classes) or not len(classes):
            raise ValueError(f"{len(inputs)} references have {len(classes)} classes")
        counts = torch.bincount(classes)
        if not counts.all():
            raise ValueError(f"class {int(counts.argmin())} has no reference; number them 0 .. K-1")
        self._references = References(self.features(inputs), classes, len(counts))
        return self

    def score(self, inputs: Images) -> Scores:
        """Normality, high for known, and the nearest known class of N images or features.

        Raises:
            ValueError: there are no references yet, or the evaluator needs more of them.
        """
        if self._references is None:
            raise ValueError("the detector has no references; call fit first")
        scores = evaluate(
            [self._evaluator],
            self._network.relation,
            self._references,
            self.features(inputs),
            self._options,
        )
        return scores[self._evaluator]

    def choose_threshold(self, known: Images, recall: float = 0.95) -> float:
        """Set the highest threshold that accepts ``recall`` of ``known`` images or features.

        Take images that were not given to ``fit``: references resemble themselves too well.
        """
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall}; choose a fraction above 0, at most 1")
        normality = self.score(known).normality.sort(descending=True).values
        self.threshold = normality[math.ceil(recall * len(normality)) - 1].item()
        return self.threshold

    def is_known(self, inputs: Images) -> Tensor:
        """bool (N,), whether each image or feature belongs to a known class.

        Raises:
            ValueError: no threshold was chosen.
        """
        if self.threshold is None:
            raise ValueError("the detector has no threshold; call choose_threshold first")
        return self.score(inputs).normality >= self.threshold

    @torch.no_grad()
    def features(self, inputs: Images) -> Tensor:
        """Features (N, D) of images; features are returned as they are."""
        if isinstance(inputs, Tensor) and inputs.ndim == 2:
            return inputs
        starts = range(0, len(inputs), self._batch_size)
        return torch.cat([self._features(inputs[i : i + self._batch_size]) for i in starts])

    def _features(self, inputs: Images) -> Tensor:
        if not isinstance(inputs, Tensor):
            preprocessing = self._network.preprocessing
            inputs = torch.stack([prepare(image, preprocessing) for image in inputs])
        return self._network.backbone(inputs)
