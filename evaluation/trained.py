"""The network of a checkpoint, ready to evaluate."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbone import for_inference, resize_input
from model.config import ModelConfig, Preprocessing, PreprocessingOptions
from model.network import ReSeND, build_network
from runtime.checkpoint import load_weights
from runtime.errors import CheckpointError, ConfigError
from runtime.original import is_original, load_original
from runtime.weights import load_strictly

_AS_TRAINED = PreprocessingOptions()


@dataclass(frozen=True)
class Trained:
    """A network and where it comes from.

    Attributes:
        network: in evaluation mode, on its device, with no gradients.
        extractor: its backbone, made fast for inference.
        path: what was asked for.
        config: the configuration saved beside the weights.
        sha256: of all weights, by name.
        backbone_sha256: of the backbone's weights, by name.
        step: training steps behind the weights; None where that is not known.
        verified: whether the weights were compared with the checkpoint's checksums.
    """

    network: ReSeND
    extractor: nn.Module
    path: Path
    config: dict[str, Any]
    sha256: str
    backbone_sha256: str
    step: int | None = None
    verified: bool = False


def load_network(
    path: Path, device: torch.device, options: PreprocessingOptions = _AS_TRAINED
) -> Trained:
    """Build the network that a run, a step folder, a weights file or an original checkpoint holds.

    Its preprocessing is the one that it was trained with, but for what ``options`` change.

    Raises:
        CheckpointError: there is none, it is damaged, it is a classifier without relational
            module, or its configuration and weights do not fit.
        ConfigError: the backbone takes no images of the size that ``options`` name.
    """
    saved = load_original(path) if is_original(path) else load_weights(path)
    weights, config = saved.weights, saved.config
    if not any(name.startswith("relation.") for name in weights):
        raise CheckpointError(
            f"{path} has no relational module; evaluate a run that was trained on pairs"
        )
    settings = config.get("model", {})
    names = {field.name for field in fields(ModelConfig)}
    try:
        network = build_network(
            ModelConfig(**{name: value for name, value in settings.items() if name in names}),
            Preprocessing.of_checkpoint(config),
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration builds no network: {error}") from error
    load_strictly(network, weights, str(path))
    _change_preprocessing(network, options)
    network.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
    backbone = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    return Trained(
        network,
        for_inference(network.backbone).to(memory_format=torch.channels_last),
        path,
        config,
        _sha256(weights),
        _sha256({**backbone, settings.get("backbone", ModelConfig.backbone): torch.empty(0)}),
        saved.step,
        saved.verified,
    )


def _change_preprocessing(network: ReSeND, options: PreprocessingOptions) -> None:
    changed = options.applied_to(network.preprocessing)
    if changed.image_size != network.preprocessing.image_size:
        try:
            resize_input(network.backbone, changed.image_size)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    network.preprocessing = changed


def _sha256(weights: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes, whatever file they were in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
