"""What a network is trained for: building it, its loss and its accuracies."""

import contextlib
from dataclasses import asdict, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from model.backbone import (
    backbone_preprocessing,
    checkpoint_activations,
    create_backbone,
    feature_dim,
)
from model.errors import ModelError
from model.network import Classifier, ReSeND, build_network
from model.objectives import build_objective
from pipelines.loader import PairBatch
from runtime.errors import ConfigError
from runtime.weights import fetching, load_backbone
from training.config import TrainConfig
from training.hard_negatives import HardNegatives
from training.optimization import ParameterGroup
from training.pair_loss import PairLoss
from training.samples import JudgedPairs


class TaskLoss(NamedTuple):
    """A task's loss on a batch.

    Attributes:
        loss: scalar, the mean over the batch.
        counts: float32 (A, 2), (correct, total) of each of the task's A accuracies.
        judged: the pairs; None where none are formed.
    """

    loss: Tensor
    counts: Tensor
    judged: JudgedPairs | None = None


class Task(Protocol):
    """What a network is trained for.

    Attributes:
        accuracies: the names of its A accuracies.
    """

    accuracies: tuple[str, ...]

    def network(self, num_classes: int) -> ReSeND | Classifier:
        """A new network; ModelError if the configured sizes are not valid."""

    def module(self, network: Any) -> nn.Module:
        """What is trained in place of ``network``, one of this task: itself, or around it."""

    def loss(self, module: nn.Module, images: Tensor, batch: PairBatch) -> TaskLoss:
        """The loss on ``batch`` of ``module``, that of ``self.module`` or around it.

        ``images`` are those of the batch in the data type of the computation; of a frozen backbone
        their features.
        """


class Relation:
    """Do the two images of a pair show the same class?"""

    accuracies: tuple[str, ...] = ("accuracy_same", "accuracy_different")

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._objective = build_objective(config.objective)

    def network(self, num_classes: int) -> ReSeND:
        model = self._config.model
        return build_network(model, self._config.input.preprocessing, pretrained=model.pretrained)

    def module(self, network: ReSeND) -> nn.Module:
        return network.on_features() if self._config.train.frozen else network

    def loss(self, module: nn.Module, images: Tensor, batch: PairBatch) -> TaskLoss:
        logits = module(images).float()
        loss = self._objective(logits, batch.different)
        return _with_accuracies(loss, JudgedPairs(batch, logits.detach()))


class GroupedRelation(Relation):
    """The same, where many pairs share an image."""

    def module(self, network: ReSeND) -> nn.Module:
        sampling = self._config.data.sampling
        means_of = sampling.images if sampling.mean_partners else None
        hard = HardNegatives(sampling) if sampling.hard_negatives else None
        network = network.on_features() if self._config.train.frozen else network
        return PairLoss(network, self._objective, means_of, self._config.train.pairs_at_once, hard)

    def loss(self, module: nn.Module, images: Tensor, batch: PairBatch) -> TaskLoss:
        loss, logits, right = module(images, batch.left, batch.right, batch.different)
        return _with_accuracies(loss, JudgedPairs(replace(batch, right=right), logits))


def _with_accuracies(loss: Tensor, judged: JudgedPairs) -> TaskLoss:
    different = judged.batch.different
    correct = (judged.logits > 0) == different
    counts = torch.stack([correct & ~different, ~different, correct & different, different])
    return TaskLoss(loss, counts.sum(1).float().view(2, 2), judged)


class Classification:
    """Which of the training classes does each image show?"""

    accuracies: tuple[str, ...] = ("accuracy",)

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def network(self, num_classes: int) -> Classifier:
        settings, size = self._config.model, self._config.input.preprocessing.image_size
        backbone = create_backbone(
            settings.backbone, image_size=size, pretrained=settings.pretrained
        )
        return Classifier(backbone, feature_dim(backbone, size), num_classes)

    def module(self, network: Classifier) -> nn.Module:
        return network

    def loss(self, module: nn.Module, images: Tensor, batch: PairBatch) -> TaskLoss:
        output = module(images).float()
        correct = (output.argmax(1) == batch.labels).sum().float()
        counts = torch.stack([correct, torch.full_like(correct, len(batch.labels))])
        return TaskLoss(nn.functional.cross_entropy(output, batch.labels), counts.view(1, 2))


def create_task(config: TrainConfig) -> Task:
    """The configured task."""
    if config.task == "classification":
        return Classification(config)
    return GroupedRelation(config) if config.data.grouped else Relation(config)


def resolve_preprocessing(config: TrainConfig) -> TrainConfig:
    """The configuration with the backbone's preprocessing where it names none.

    Raises:
        ConfigError: timm has no such backbone.
    """
    try:
        own = backbone_preprocessing(config.model.backbone)
    except ModelError as error:
        raise ConfigError(f"model: {error}") from error
    return replace(config, input=replace(config.input, **asdict(config.input.applied_to(own))))


def build(config: TrainConfig, num_classes: int) -> ReSeND | Classifier:
    """The network, its backbone at the weights that the configuration names.

    Raises:
        ConfigError: the sizes are not valid, or timm's weights cannot be fetched.
        CheckpointError: the backbone's weights are missing, damaged or do not fit.
    """
    settings = config.model
    fetched = fetching(settings.backbone, "model.backbone_weights")
    with fetched if settings.pretrained else contextlib.nullcontext():
        try:
            network = create_task(config).network(num_classes)
        except ModelError as error:
            raise ConfigError(f"model: {error}") from error
    if settings.backbone_weights is not None:
        load_backbone(network.backbone, settings.backbone_weights)
    return network


def save_memory(network: ReSeND | Classifier, config: TrainConfig) -> None:
    """Let the network keep fewer activations where the configuration asks for it.

    Raises:
        ConfigError: its backbone does not support that.
    """
    if config.train.activation_checkpointing:
        try:
            checkpoint_activations(network.backbone)
        except ModelError as error:
            raise ConfigError(
                f"train.activation_checkpointing with {config.model.backbone}: {error}"
            ) from error


def parameter_groups(network: ReSeND | Classifier, backbone_factor: float) -> list[ParameterGroup]:
    """The backbone's parameters, unless it is frozen, and all others; each group with its
    learning-rate factor."""
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    trained = [parameter for parameter in backbone if parameter.requires_grad]
    groups = [ParameterGroup(trained, backbone_factor), ParameterGroup(others, 1.0)]
    return groups if trained else groups[1:]
