"""Checkpoints of the original ReSeND code and its successors, read and written.

Three layouts are read: a folder with ``feature_extractor.pkl`` and ``cls_rel.pkl`` whose head is
one linear layer; the same with a two-layer head; and a single file whose names begin with
``feature_extractor.`` and ``cls_rel.``. They differ from ours in the names of the two parts, and in
that the feature extractor holds each tensor twice, the second time under ``model_resnet.``, with an
ImageNet classifier that nothing uses.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime import checkpoint
from runtime.checkpoint import load_weights, read_tensors
from runtime.errors import CheckpointError

EXTRACTOR, RELATION = "feature_extractor", "cls_rel"
_SECOND_NAME = "model_resnet."
_CLASSIFIER = (1000, "fc.weight", "fc.bias")


def import_original(
    source: Path, run: Path, *, backbone: str, num_heads: int, image_size: int
) -> Path:
    """Turn an original checkpoint into the checkpoint of step 0 of ``run``; returns its folder.

    Args:
        source: a folder with the two files, or the single file.
        run: where the checkpoint is written.
        backbone: timm's name of the backbone; the files do not tell it.
        num_heads: attention heads, likewise.
        image_size: height and width in pixels that it was trained at.

    Raises:
        CheckpointError: the source is none of the three layouts, or ``run`` has checkpoints.
    """
    if checkpoint.step_folders(run):
        raise CheckpointError(f"{run} holds checkpoints already; give another --out")
    extractor, relation = _parts(source)
    weights = {f"backbone.{name}": tensor for name, tensor in _once(extractor).items()}
    weights |= {f"relation.{name}": tensor for name, tensor in relation.items()}
    config: dict[str, Any] = {
        "task": "relation",
        "model": {"backbone": backbone, "num_heads": num_heads} | _sizes(relation, source),
        "input": {"image_size": image_size},
    }
    return checkpoint.save(run, 0, weights=weights, config=config, metrics={})


def export_original(source: Path, folder: Path) -> None:
    """Write a checkpoint of ours as the original's two files.

    The classifier that the original's feature extractor carries, unused, is written as zeros.

    Raises:
        CheckpointError: there is no checkpoint, or the original has no place for its weights.
    """
    weights, _ = load_weights(source)
    extractor, relation = _split(weights, "backbone.", "relation.")
    if not relation or "fc.weight" in extractor or "similarity_scale" in relation:
        reason = "a similarity start" if relation else "no relational module"
        raise CheckpointError(f"{source} has {reason}, for which the original has no place")
    relation_width = relation["proj.weight"].shape[1]
    classes, weight, bias = _CLASSIFIER
    twice = extractor | {_SECOND_NAME + name: tensor for name, tensor in extractor.items()}
    twice[_SECOND_NAME + weight] = torch.zeros(classes, relation_width)
    twice[_SECOND_NAME + bias] = torch.zeros(classes)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(twice, folder / f"{EXTRACTOR}.pkl")
    torch.save(relation, folder / f"{RELATION}.pkl")


def _parts(source: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if source.is_dir():
        extractor = _state(source / f"{EXTRACTOR}.pkl")
        relation = _state(source / f"{RELATION}.pkl")
    else:
        extractor, relation = _split(_state(source), f"{EXTRACTOR}.", f"{RELATION}.")
    if not extractor or not relation:
        raise CheckpointError(
            f"{source} is no original checkpoint: expected {EXTRACTOR}.pkl and {RELATION}.pkl, or "
            f"one file with the prefixes {EXTRACTOR}. and {RELATION}."
        )
    return extractor, relation


def _state(path: Path) -> dict[str, Tensor]:
    values = read_tensors(path)
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise CheckpointError(f"{path} holds no state dict: a mapping of names to tensors")
    return {name.removeprefix("module."): tensor for name, tensor in values.items()}


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
    blocks = {int(m[1]) for name in relation if (m := re.match(r"blocks\.(\d+)\.", name))}
    last = next((name for name in ("head.2.weight", "head.weight") if name in relation), None)
    if "cls_token" not in relation or last is None or not blocks:
        raise CheckpointError(f"{source} has no relational transformer with a head")
    return {
        "embed_dim": relation["cls_token"].shape[-1],
        "depth": max(blocks) + 1,
        "head": "mlp" if last == "head.2.weight" else "linear",
        "num_logits": relation[last].shape[0],
        "similarity_start": False,
    }
