"""Checkpoints of the original ReSeND code and its successors, read and written.

Three layouts are read: a folder with ``feature_extractor.pkl`` and ``cls_rel.pkl`` whose head is
one linear layer; the same with a two-layer head; and a single file whose names begin with
``feature_extractor.`` and ``cls_rel.``. Unlike ours, they name the two parts differently, hold each
tensor of the feature extractor twice, the second time under ``model_resnet.``, and contain an
ImageNet classifier that nothing uses.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime import checkpoint
from runtime.checkpoint import Checkpoint, load_weights
from runtime.errors import CheckpointError, first_line
from runtime.tensor_files import read_state_dict

EXTRACTOR, RELATION = "feature_extractor", "cls_rel"
_SECOND_NAME = "model_resnet."
_CLASSIFIER = (1000, "fc.weight", "fc.bias")


@dataclass(frozen=True)
class OriginalSettings:
    """What the original's files do not store; the defaults are the paper's.

    Attributes:
        backbone: timm's name of the backbone.
        num_heads: attention heads.
        image_size: height and width in pixels of the images it was trained on.
    """

    backbone: str = "resnet18"
    num_heads: int = 12
    image_size: int = 224


def is_original(path: Path) -> bool:
    """Whether ``load_original`` should read ``path``: a folder with the original's files, or a file
    that is not ``.safetensors``."""
    if os.path.isdir(path):
        return os.path.exists(path / f"{EXTRACTOR}.pkl")
    return os.path.exists(path) and path.suffix != ".safetensors"


def load_original(source: Path, settings: OriginalSettings | None = None) -> Checkpoint:
    """An original checkpoint as a checkpoint of ours, at step 0.

    Args:
        source: a folder with the two files, or the single file.
        settings: the paper's where it is None.

    Raises:
        CheckpointError: the source has none of the three layouts.
    """
    settings = settings or OriginalSettings()
    extractor, relation = _parts(source)
    weights = {f"backbone.{name}": tensor for name, tensor in _once(extractor).items()}
    weights |= {f"relation.{name}": tensor for name, tensor in relation.items()}
    model = {"backbone": settings.backbone, "num_heads": settings.num_heads}
    config: dict[str, Any] = {
        "task": "relation",
        "model": model | _sizes(relation, source),
        "input": {"image_size": settings.image_size},
    }
    return Checkpoint(source, 0, weights, config, training={}, verified=False)


def import_original(source: Path, run: Path, settings: OriginalSettings | None = None) -> Path:
    """Turn an original checkpoint into the checkpoint of step 0 of ``run``; returns its folder.

    Raises:
        CheckpointError: see ``load_original``; or ``run`` has checkpoints or cannot be written.
    """
    if checkpoint.step_folders(run):
        raise CheckpointError(f"{run} already holds checkpoints; give another --out")
    original = load_original(source, settings)
    return checkpoint.save(run, 0, weights=original.weights, config=original.config, metrics={})


def export_original(source: Path, folder: Path) -> None:
    """Write a checkpoint of ours as the original's two files.

    The classifier that the original's feature extractor carries, unused, is written as zeros.

    Raises:
        CheckpointError: there is no checkpoint, the original has no place for its weights, or the
            files cannot be written.
    """
    weights = load_weights(source).weights
    extractor, relation = _split(weights, "backbone.", "relation.")
    if "proj.weight" not in relation or "similarity_scale" in relation:
        reason = "a similarity start" if relation else "no relational module"
        raise CheckpointError(f"{source} has {reason}, for which the original has no place")
    relation_width = relation["proj.weight"].shape[1]
    classes, weight, bias = _CLASSIFIER
    twice = extractor | {_SECOND_NAME + name: tensor for name, tensor in extractor.items()}
    twice[_SECOND_NAME + weight] = torch.zeros(classes, relation_width)
    twice[_SECOND_NAME + bias] = torch.zeros(classes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in ((EXTRACTOR, twice), (RELATION, relation)):
            temporary = folder / f".{name}.pkl.tmp"
            torch.save(values, temporary)
            temporary.replace(folder / f"{name}.pkl")
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise CheckpointError(f"cannot write to {folder}: {first_line(error)}") from error


def _parts(source: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if os.path.isdir(source):
        extractor = read_state_dict(source / f"{EXTRACTOR}.pkl")
        relation = read_state_dict(source / f"{RELATION}.pkl")
    else:
        extractor, relation = _split(read_state_dict(source), f"{EXTRACTOR}.", f"{RELATION}.")
    if not extractor or not relation:
        raise CheckpointError(
            f"{source} is not an original checkpoint: expected {EXTRACTOR}.pkl and {RELATION}.pkl, "
            f"or one file with the prefixes {EXTRACTOR}. and {RELATION}."
        )
    return extractor, relation


def _split(
    weights: Mapping[str, Tensor], first: str, second: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name, tensor in weights.items():
        for prefix, part in zip((first, second), parts, strict=True):
            if name.startswith(prefix):
                part[name.removeprefix(prefix).removeprefix("module.")] = tensor
    return parts


def _once(extractor: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor under its short name, without the classifier."""
    short = {name.removeprefix(_SECOND_NAME): tensor for name, tensor in extractor.items()}
    short |= {name: t for name, t in extractor.items() if not name.startswith(_SECOND_NAME)}
    return {name: tensor for name, tensor in short.items() if not name.startswith("fc.")}


def _sizes(relation: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    blocks = {int(m[1]) for name in relation if (m := re.match(r"blocks\.(\d{1,4})\.", name))}
    last = next((name for name in ("head.2.weight", "head.weight") if name in relation), None)
    if last is None or not blocks or "cls_token" not in relation or relation[last].ndim != 2:
        raise CheckpointError(f"{source} has no relational transformer with a head")
    return {
        "embed_dim": relation["cls_token"].numel(),
        "depth": max(blocks) + 1,
        "head": "mlp" if last == "head.2.weight" else "linear",
        "num_logits": relation[last].shape[0],
        "similarity_start": False,
    }
