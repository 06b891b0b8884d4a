"""The networks that the command names: checkpoints and bare backbones, each with a name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from evaluation.config import NetworkOptions
from evaluation.trained import Provenance, TrainedNetwork, build_trained, read_checkpoint
from model.backbone import backbone_preprocessing
from model.config import PreprocessingOptions
from model.errors import ModelError
from model.network import build_bare
from runtime.errors import ConfigError
from runtime.weights import fetching, load_backbone


@dataclass(frozen=True)
class NamedNetwork:
    """A network to evaluate.

    Attributes:
        name: no other that is evaluated has it.
        trained: the network.
        provenance: where it comes from.
    """

    name: str
    trained: TrainedNetwork
    provenance: Provenance

    @property
    def is_bare(self) -> bool:
        """Whether it has no relational module."""
        return self.trained.network.relation is None

    @property
    def origin(self) -> str:
        """Which files it was read from."""
        found = self.provenance
        if found.path is None:
            return f"backbone {found.backbone}: the weights that timm publishes"
        if found.step is None and self.is_bare:
            return f"backbone {found.backbone}: {found.path}"
        of_step = "" if found.step is None else f" of step {found.step}"
        notes = ", averaged weights" if found.averaged else ""
        notes += "" if found.verified else ", which has no checksums to verify"
        bare = ", whose backbone is evaluated alone" if self.is_bare else ""
        return f"checkpoint{of_step}: {found.path}{notes}{bare}"


class _Loaded(NamedTuple):
    """A network that has no name yet: ``short`` unless another has the same, then ``full``."""

    short: str
    full: str
    trained: TrainedNetwork
    provenance: Provenance


def load_networks(
    options: NetworkOptions, preprocessing: PreprocessingOptions, device: torch.device
) -> list[NamedNetwork]:
    """The checkpoints and then the backbones of ``options``.

    Each has the preprocessing that it was trained or published with, changed by ``preprocessing``.

    Raises:
        CheckpointError: a checkpoint or a file of weights cannot be used.
        ConfigError: timm has no such backbone, its weights cannot be fetched, or it does not accept
            the image size.
    """
    loaded = [_of_checkpoint(path, preprocessing, device) for path in options.checkpoint or ()]
    backbones = options.backbone or ()
    files = options.weights or (None,) * len(backbones)
    loaded += [
        _of_backbone(name, file, preprocessing, device)
        for name, file in zip(backbones, files, strict=True)
    ]
    names = unique_names([(network.short, network.full) for network in loaded])
    return [
        NamedNetwork(name, network.trained, network.provenance)
        for name, network in zip(names, loaded, strict=True)
    ]


def unique_names(names: Sequence[tuple[str, str]]) -> list[str]:
    """Of each pair of a short and a full name the short one, or the full one where another has the
    same short one; what is still the same is numbered."""
    short = [name for name, _ in names]
    chosen = [brief if short.count(brief) == 1 else full for brief, full in names]
    same = [chosen[:place].count(name) for place, name in enumerate(chosen)]
    return [f"{name} #{n + 1}" if n else name for name, n in zip(chosen, same, strict=True)]


def _of_checkpoint(
    path: Path, preprocessing: PreprocessingOptions, device: torch.device
) -> _Loaded:
    checkpoint = read_checkpoint(path)
    trained = build_trained(checkpoint, device, preprocessing)
    return _Loaded(path.name or str(path), str(path), trained, Provenance.of(checkpoint))


def _of_backbone(
    name: str, file: Path | None, preprocessing: PreprocessingOptions, device: torch.device
) -> _Loaded:
    try:
        prepared = preprocessing.applied_to(backbone_preprocessing(name))
        if file is None:
            with fetching(name, "--weights"):
                network = build_bare(name, prepared, pretrained=True)
        else:
            network = build_bare(name, prepared)
            load_backbone(network.backbone, file)
    except ModelError as error:
        raise ConfigError(f"--backbone: {error}") from error
    provenance = Provenance.of_backbone(name, file, network.state_dict())
    short, full = (name, name) if file is None else (f"{name} ({file.name})", f"{name} ({file})")
    return _Loaded(short, full, TrainedNetwork.of(network, device), provenance)
