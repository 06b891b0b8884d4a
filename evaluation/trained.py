"""The network of a checkpoint, or a bare backbone, ready to evaluate, and where it comes from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbone import for_inference, num_parameters, resize_input
from model.config import ModelConfig, Preprocessing, PreprocessingOptions
from model.errors import ModelError
from model.network import BareBackbone, ReSeND, build_bare, build_network, untrained_parts
from runtime.checkpoint import Checkpoint, load_weights
from runtime.errors import CheckpointError, ConfigError
from runtime.original import is_original, load_original
from runtime.weights import load_strictly

_AS_TRAINED = PreprocessingOptions()


@dataclass(frozen=True)
class TrainedNetwork:
    """A network ready to score.

    Attributes:
        network: in evaluation mode, on its device, without gradients.
        extractor: its backbone, made fast for inference.
    """

    network: ReSeND | BareBackbone
    extractor: nn.Module

    @staticmethod
    def of(network: ReSeND | BareBackbone, device: torch.device) -> "TrainedNetwork":
        """``network`` moved to ``device`` and made ready."""
        network.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
        return TrainedNetwork(network, for_inference(network.backbone))


@dataclass(frozen=True)
class Provenance:
    """Where a network comes from.

    Attributes:
        backbone: timm's name of the backbone.
        path: the checkpoint's folder or file that was read; None for weights that timm fetched.
        step: training steps behind the weights; None where that is not known.
        averaged: whether the weights are those averaged over the training steps.
        verified: whether the files were compared with the checkpoint's checksums.
        sha256: sha256 of all weights.
        backbone_sha256: sha256 of the backbone's name and weights.
        untrained: the parts of the network that still look randomly initialized.
        config: the YAML document saved with the weights, which may hold anything.
    """

    backbone: str
    path: Path | None
    step: int | None
    averaged: bool
    verified: bool
    sha256: str
    backbone_sha256: str
    untrained: tuple[str, ...]
    config: dict[str, Any]

    @staticmethod
    def of(checkpoint: Checkpoint) -> "Provenance":
        """Hash the weights of ``checkpoint``."""
        weights = checkpoint.weights
        name = checkpoint.setting("model", "backbone") or ModelConfig.backbone
        return Provenance(
            backbone=name,
            path=checkpoint.path,
            step=checkpoint.step,
            averaged=checkpoint.is_averaged,
            verified=checkpoint.verified,
            sha256=_sha256(weights),
            backbone_sha256=backbone_sha256(name, weights),
            untrained=untrained_parts(weights),
            config=checkpoint.config,
        )

    @staticmethod
    def of_backbone(name: str, path: Path | None, weights: Mapping[str, Tensor]) -> "Provenance":
        """That of a bare backbone with the ``weights`` of the file at ``path``, or of timm."""
        return Provenance(
            backbone=name,
            path=path,
            step=None,
            averaged=False,
            verified=False,
            sha256=_sha256(weights),
            backbone_sha256=backbone_sha256(name, weights),
            untrained=untrained_parts(weights),
            config={},
        )


def load_network(
    path: Path, device: torch.device, options: PreprocessingOptions = _AS_TRAINED
) -> TrainedNetwork:
    """Build the network that a run, a step folder, a weights file or an original checkpoint holds.

    Its preprocessing is the one that it was trained with, except for what ``options`` change.

    Raises:
        CheckpointError: see ``read_checkpoint`` and ``build_trained``.
        ConfigError: the backbone does not accept the image size in ``options``.
    """
    return build_trained(read_checkpoint(path), device, options)


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights at ``path`` and their configuration.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it has neither a relational
            module nor the task of classification.
    """
    checkpoint = load_original(path) if is_original(path) else load_weights(path)
    related = any(name.startswith("relation.") for name in checkpoint.weights)
    if not related and not _classifies(checkpoint):
        raise CheckpointError(
            f"{path} has no relational module; evaluate a run of task: relation or classification"
        )
    return checkpoint


def build_trained(
    checkpoint: Checkpoint, device: torch.device, options: PreprocessingOptions = _AS_TRAINED
) -> TrainedNetwork:
    """Build the network of ``checkpoint`` on ``device``, its preprocessing changed by ``options``.

    That of a classification run is a bare backbone, without the classifier.

    Raises:
        CheckpointError: its configuration is invalid or does not fit its weights.
        ConfigError: the backbone does not accept the image size in ``options``.
    """
    network = _build(checkpoint)
    _change_preprocessing(network, options)
    return TrainedNetwork.of(network, device)


def _classifies(checkpoint: Checkpoint) -> bool:
    return checkpoint.setting("task") == "classification"


def _change_preprocessing(network: ReSeND | BareBackbone, options: PreprocessingOptions) -> None:
    changed = options.applied_to(network.preprocessing)
    if changed.image_size != network.preprocessing.image_size:
        try:
            resize_input(network.backbone, changed.image_size)
        except ModelError as error:
            raise ConfigError(str(error)) from error
    network.preprocessing = changed


def _build(checkpoint: Checkpoint) -> ReSeND | BareBackbone:
    try:
        return _built_as_configured(checkpoint)
    except CheckpointError as error:
        if not is_original(checkpoint.path):
            raise
        raise CheckpointError(
            f"{error}; name its architecture with `python -m runtime import {checkpoint.path} "
            "--out RUN --backbone NAME --num-heads N` and evaluate RUN"
        ) from error


def _built_as_configured(checkpoint: Checkpoint) -> ReSeND | BareBackbone:
    names = {field.name for field in fields(ModelConfig)}
    settings = checkpoint.setting("model") or {}
    try:
        if not isinstance(settings, dict):
            raise ModelError("model is not a mapping of names to values")
        config = ModelConfig(**{key: value for key, value in settings.items() if key in names})
        preprocessing = Preprocessing.of_checkpoint(checkpoint.config)
        network: ReSeND | BareBackbone
        _expect_enough_weights(checkpoint, config, preprocessing.image_size)
        if _classifies(checkpoint):
            network = build_bare(config.backbone, preprocessing)
        else:
            network = build_network(config, preprocessing)
    except ModelError as error:
        raise CheckpointError(
            f"{checkpoint.path}: no network can be built from its configuration: {error}"
        ) from error
    weights = checkpoint.weights
    if _classifies(checkpoint):
        weights = {name: weights[name] for name in weights if not name.startswith("head.")}
    load_strictly(network, weights, str(checkpoint.path))
    return network


def _expect_enough_weights(checkpoint: Checkpoint, config: ModelConfig, image_size: int) -> None:
    """Raise ModelError rather than allocate much more than the checkpoint holds; a block of the
    relational module has 12 d^2 weights."""
    num_weights = sum(tensor.numel() for tensor in checkpoint.weights.values())
    related = not _classifies(checkpoint)
    if related and 12 * config.depth * config.embed_dim**2 > num_weights:
        raise ModelError(f"embed_dim and depth need more than its {num_weights:,} weights")
    if num_parameters(config.backbone, image_size) > num_weights:
        raise ModelError(f"{config.backbone} needs more than its {num_weights:,} weights")


def backbone_sha256(name: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the backbone's name and its weights among those of a network."""
    backbone = {key: tensor for key, tensor in weights.items() if key.startswith("backbone.")}
    return _sha256({**backbone, name: torch.empty(0)})


def _sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
