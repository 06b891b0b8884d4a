"""What a network is trained for: its parts, its loss and what is counted."""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from model.backbone import backbone_preprocessing, create_backbone, feature_dim
from model.network import Classifier, ReSeND, build_network
from model.objectives import build_objective
from pipelines.loader import PairBatch
from runtime.errors import ConfigError, first_line
from runtime.weights import load_backbone
from training.config import TrainConfig

NUM_COUNTS = 4
Loss = Callable[[Tensor, PairBatch], tuple[Tensor, Tensor]]


def resolve_preprocessing(config: TrainConfig) -> TrainConfig:
    """The configuration with the backbone's preprocessing where it names none.

    Raises:
        ConfigError: timm has no such backbone.
    """
    try:
        own = backbone_preprocessing(config.model.backbone)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    return replace(config, input=replace(config.input, **asdict(config.input.applied_to(own))))


def build(config: TrainConfig, num_classes: int) -> ReSeND | Classifier:
    """The network, its backbone at the weights that the configuration names.

    Raises:
        ConfigError: the sizes build no network, or timm's weights cannot be fetched.
        CheckpointError: the backbone's weights are missing, damaged or do not fit.
    """
    settings, preprocessing = config.model, config.input.preprocessing
    try:
        network: ReSeND | Classifier
        if config.task == "relation":
            network = build_network(settings, preprocessing, pretrained=settings.pretrained)
        else:
            size = preprocessing.image_size
            backbone = create_backbone(
                settings.backbone, image_size=size, pretrained=settings.pretrained
            )
            network = Classifier(backbone, feature_dim(backbone, size), num_classes)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"cannot fetch the weights of {settings.backbone} ({first_line(error)}); "
            "where there is no network give a file as model.backbone_weights"
        ) from error
    if settings.backbone_weights is not None:
        load_backbone(network.backbone, settings.backbone_weights)
    return network


def parameter_groups(
    network: ReSeND | Classifier, backbone_factor: float
) -> list[tuple[list[nn.Parameter], float]]:
    """The backbone's parameters and the others, each with its factor of the learning rate."""
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    return [(backbone, backbone_factor), (others, 1.0)]


def build_loss(config: TrainConfig) -> Loss:
    """(network's output, batch) -> mean loss, and counts (4,): right and all of the same pairs,
    right and all of the different ones; when classifying, of the images, and two zeros."""
    return _relation(config) if config.task == "relation" else _classification


def _relation(config: TrainConfig) -> Loss:
    objective = build_objective(config.objective)

    def loss_of(logits: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
        different = batch.different
        right = (logits > 0) == different
        counts = torch.stack([right & ~different, ~different, right & different, different])
        return objective(logits, different), counts.sum(1).float()

    return loss_of


def _classification(logits: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
    right = (logits.argmax(1) == batch.labels).sum().float()
    none = torch.zeros_like(right)
    counts = torch.stack([right, torch.full_like(right, len(batch.labels)), none, none])
    return nn.functional.cross_entropy(logits, batch.labels), counts
