"""The networks: ReSeND, trained on pairs; a classifier, which pre-trains a backbone; and a bare
backbone, which is evaluated as it is."""

from collections.abc import Mapping

from torch import Tensor, nn

from model.backbone import create_backbone, feature_dim
from model.config import PAPER_PREPROCESSING, ModelConfig, Preprocessing
from model.errors import ModelError
from model.relation import RelationalTransformer


class ReSeND(nn.Module):
    """A backbone and the relational module that compares its features.

    Attributes:
        preprocessing: how an image becomes the backbone's input.
    """

    def __init__(
        self,
        backbone: nn.Module,
        relation: RelationalTransformer,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.relation = relation
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,) of the pairs in ``images`` (2B, 3, H, W): B anchors, then their partners.

        High means that the two images show different classes.
        """
        anchors, partners = self.backbone(images).chunk(2)
        return self.relation(anchors, partners)

    @property
    def width(self) -> int:
        """D, the width of the backbone's features."""
        return self.relation.proj.in_features

    def on_features(self) -> "ReSeND":
        """The network with the same relational module whose input is features in place of images:
        its backbone is the identity."""
        return ReSeND(nn.Identity(), self.relation, self.preprocessing)


class BareBackbone(nn.Module):
    """A backbone without a relational module: its features are compared by distances.

    Attributes:
        preprocessing: how an image becomes the backbone's input.
        width: D, the width of its features.
    """

    relation = None

    def __init__(self, backbone: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone = backbone
        self.preprocessing = preprocessing
        self.width = feature_dim(backbone, preprocessing.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D) of ``images`` (N, 3, H, W)."""
        return self.backbone(images)


class Classifier(nn.Module):
    """A backbone with a linear classifier, to learn features before training on pairs."""

    def __init__(self, backbone: nn.Module, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ModelError(f"num_classes is {num_classes}; a classifier needs at least 2")
        self.backbone = backbone
        self.head = nn.Linear(feature_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits (N, C) of ``images`` (N, 3, H, W)."""
        return self.head(self.backbone(images))


def build_network(
    config: ModelConfig,
    preprocessing: Preprocessing = PAPER_PREPROCESSING,
    *,
    pretrained: bool = False,
) -> ReSeND:
    """The network of ``config`` for images of ``preprocessing``.

    ``pretrained`` starts its backbone at timm's published weights.

    Raises:
        ModelError: timm has no such backbone, or a size is out of range.
    """
    size = preprocessing.image_size
    backbone = create_backbone(config.backbone, image_size=size, pretrained=pretrained)
    relation = RelationalTransformer(feature_dim(backbone, size), config)
    return ReSeND(backbone, relation, preprocessing)


def build_bare(
    backbone: str, preprocessing: Preprocessing, *, pretrained: bool = False
) -> BareBackbone:
    """The timm model ``backbone`` for images of ``preprocessing``.

    ``pretrained`` takes timm's published weights.

    Raises:
        ModelError: timm has no such model, or it does not accept the image size.
    """
    size = preprocessing.image_size
    module = create_backbone(backbone, image_size=size, pretrained=pretrained)
    return BareBackbone(module, preprocessing)


def untrained_parts(weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Which of ``backbone`` and ``relation`` still look randomly initialized.

    The biases of normalization layers start at zero, and the first training step moves them.

    Args:
        weights: a state dict of ``ReSeND``.
    """
    parts = []
    for part in ("backbone", "relation"):
        biases = [
            tensor
            for name, tensor in weights.items()
            if name.startswith(f"{part}.")
            and name.endswith(".bias")
            and (weight := weights.get(name.removesuffix("bias") + "weight")) is not None
            and weight.ndim == 1
        ]
        if biases and not any(bias.any() for bias in biases):
            parts.append(part)
    return tuple(parts)
