"""A fitted detector: a network, the references of the known classes, and a threshold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.trained import TrainedNetwork
from model.config import EvaluatorOptions, Precision
from model.novelty import NoveltyDetector
from model.prototypes import class_means
from runtime.errors import ConfigError

_SEED = 0  # of the draw of held-out references


@dataclass(frozen=True)
class NetworkOrigin:
    """Where a detector's network comes from.

    Attributes:
        model: the configuration of the model that it is built from.
        bare: whether it is a backbone without a relational module.
        path: the checkpoint or the file of weights; None for weights that timm fetched.
        step: training steps behind it; None where that is not known.
        sha256: of its weights.
    """

    model: Mapping[str, Any]
    bare: bool
    path: str | None
    step: int | None
    sha256: str


@dataclass(frozen=True)
class Rule:
    """How an image is compared with the references.

    Attributes:
        evaluator: one of ``model.evaluators.EVALUATORS``.
        options: its parameters.
    """

    evaluator: str
    options: EvaluatorOptions


@dataclass(frozen=True)
class KnownClass:
    """A known class: its name, the number of its references, and the pack or folder of them."""

    name: str
    images: int
    source: str


@dataclass(frozen=True)
class StoredReferences:
    """What images are compared with, on the network's device.

    Attributes:
        features: float32 (R, D), of the references, or the mean of each class.
        labels: int64 (R,), their classes, 0 .. K-1.
        held_out: bool (R,), the references that the threshold was chosen on.
        only_means: whether ``features`` are the class means, and nothing else was kept.
    """

    features: Tensor
    labels: Tensor
    held_out: Tensor
    only_means: bool = False

    def to(self, device: torch.device) -> "StoredReferences":
        """The same on ``device``."""
        return replace(
            self,
            features=self.features.to(device),
            labels=self.labels.to(device),
            held_out=self.held_out.to(device),
        )

    def without(self, chosen: Tensor) -> "StoredReferences":
        """Those that are not ``chosen``, bool (R,)."""
        kept = ~chosen
        return replace(
            self,
            features=self.features[kept],
            labels=self.labels[kept],
            held_out=self.held_out[kept],
        )

    def means(self) -> "StoredReferences":
        """The class means in place of the references."""
        labels = self.labels.unique()
        features = class_means(self.features, self.labels, len(labels))
        return StoredReferences(features, labels, torch.zeros_like(labels).bool(), only_means=True)


@dataclass(frozen=True)
class Threshold:
    """The lowest normality that counts as known.

    Attributes:
        value: the normality.
        recall: the share of the images it was chosen on that it accepts, or slightly more.
        images: their number.
        source: the pack or folder that holds them; None for the held-out references.
        held_out: the share of each class's references that were held out; 0 where none were.
    """

    value: float
    recall: float
    images: int
    source: str | None
    held_out: float


@dataclass(frozen=True)
class Detector:
    """A fitted detector.

    Attributes:
        network: ready to extract features.
        origin: where it comes from.
        rule: how images are compared.
        classes: the K known classes.
        references: of these classes.
        threshold: from which normality on an image is known.
    """

    network: TrainedNetwork
    origin: NetworkOrigin
    rule: Rule
    classes: tuple[KnownClass, ...]
    references: StoredReferences
    threshold: Threshold

    @cached_property
    def novelty(self) -> NoveltyDetector:
        """The detector for images and features, with its references and its threshold."""
        found = novelty_detector(self.network, self.rule, self.references)
        found.threshold = self.threshold.value
        return found

    @property
    def can_rechoose(self) -> bool:
        """Whether the images that the threshold was chosen on are among the references."""
        return self.threshold.held_out > 0 and not self.references.only_means

    def at_precision(self, precision: Precision) -> "Detector":
        """The detector with relational products in ``precision``."""
        options = replace(self.rule.options, precision=precision)
        return replace(self, rule=replace(self.rule, options=options))

    def with_top(self, top: int | None) -> "Detector":
        """The detector that compares an image with the ``top`` classes nearest by cosine alone,
        with a threshold chosen for that, if possible; None compares with all.

        Raises:
            ConfigError: the threshold no longer holds, and cannot be chosen again.
            EvaluatorError: there are fewer classes.
        """
        if top is None:
            return self
        rule = replace(self.rule, options=replace(self.rule.options, top=top))
        if rule.evaluator == "relation-softmax" and not self.can_rechoose:
            raise ConfigError(
                "relation-softmax over fewer classes needs another threshold, and the detector "
                "has no images to choose one on; leave out --top, or fit it by relation-logit"
            )
        return replace(self, rule=rule)._changed(self.classes, self.references)

    def check_is_new(self, name: str) -> None:
        """Raise ConfigError if there is a known class ``name``."""
        if name in {known.name for known in self.classes}:
            raise ConfigError(
                f"the detector has a class {name} already; choose another name, or remove it first"
            )

    def with_class(self, added: KnownClass, features: Tensor) -> "Detector":
        """The detector with one more known class, of which the references have ``features`` (n, D).

        A threshold that was chosen on held-out references is chosen again, at the same recall, with
        those of the new class; any other is kept.

        Raises:
            ConfigError: there is a class of this name.
        """
        self.check_is_new(added.name)
        old = self.references
        if old.only_means:
            features = features.double().mean(dim=0, keepdim=True).float()
        labels = torch.full((len(features),), len(self.classes), device=features.device)
        share = self.threshold.held_out if self.can_rechoose else 0
        new = StoredReferences(features, labels, hold_out(labels, share))
        references = StoredReferences(
            torch.cat((old.features, new.features)),
            torch.cat((old.labels, new.labels)),
            torch.cat((old.held_out, new.held_out)),
            old.only_means,
        )
        return self._changed((*self.classes, added), references)

    def without_class(self, name: str) -> "Detector":
        """The detector without the known class ``name``; its threshold as in ``with_class``.

        Raises:
            ConfigError: there is no class of this name, or no other class.
        """
        names = [known.name for known in self.classes]
        if name not in names:
            raise ConfigError(f"the detector has no class {name}; it has {_some(names)}")
        if len(names) == 1:
            raise ConfigError(f"{name} is the detector's only class; add another one first")
        number = names.index(name)
        others = self.references.without(self.references.labels == number)
        labels = others.labels - (others.labels > number).long()
        classes = self.classes[:number] + self.classes[number + 1 :]
        return self._changed(classes, replace(others, labels=labels))

    def _changed(self, classes: tuple[KnownClass, ...], references: StoredReferences) -> "Detector":
        threshold = self.threshold
        if self.can_rechoose and references.held_out.any():
            threshold = choose_on_held_out(
                self.network, self.rule, references, threshold.recall, threshold.held_out
            )
        return replace(self, classes=classes, references=references, threshold=threshold)


def hold_out(labels: Tensor, share: float) -> Tensor:
    """bool (R,), a random ``share`` of the references of each class with two or more; at least one
    of them is held out and one is not. A class's draw depends on its number and size alone. A share
    of 0 holds out none."""
    held_out = torch.zeros_like(labels, dtype=torch.bool)
    for number in labels.unique().tolist() if share else []:
        members = torch.nonzero(labels == number).flatten().cpu().numpy()
        count = min(len(members) - 1, max(1, round(share * len(members))))
        rng = np.random.default_rng((_SEED, number))
        held_out[torch.from_numpy(rng.permutation(members)[:count])] = True
    return held_out


def choose_on_held_out(
    network: TrainedNetwork, rule: Rule, references: StoredReferences, recall: float, share: float
) -> Threshold:
    """The threshold that accepts ``recall`` of the held-out references, which are compared with the
    others alone; ``share`` of each class is held out.

    Raises:
        ConfigError: no reference is held out.
        EvaluatorError: the evaluator cannot be computed from the others.
    """
    held_out = references.held_out
    if not held_out.any():
        raise ConfigError(
            "there is no known image to choose a threshold on, since each class has one reference; "
            "give more references, or known images as --threshold-set"
        )
    others = novelty_detector(network, rule, references.without(held_out))
    value = others.choose_threshold(references.features[held_out], recall)
    return Threshold(value, recall, int(held_out.sum()), None, share)


def novelty_detector(
    network: TrainedNetwork, rule: Rule, references: StoredReferences
) -> NoveltyDetector:
    """A detector without a threshold."""
    found = NoveltyDetector(network.network, rule.evaluator, rule.options)
    return found.fit(references.features, references.labels)


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")
