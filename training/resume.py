"""Continuing a run: from which checkpoint, and whether it is the same run."""

from dataclasses import fields
from typing import Any

import torch

from model.config import ModelConfig, Preprocessing
from model.network import Classifier, ReSeND
from pipelines.pack import Pack
from runtime import checkpoint
from runtime.checkpoint import Checkpoint
from runtime.config import plain
from runtime.distributed import Process
from runtime.errors import ConfigError
from runtime.weights import fit
from training.config import TrainConfig

_SAME: dict[str, tuple[str, ...]] = {
    "data": ("domains", "classes", "splits", "num_negatives", "balanced"),
    "model": tuple(field.name for field in fields(ModelConfig)),
    "optimizer": ("name",),
}


def find(config: TrainConfig, process: Process) -> Checkpoint | None:
    """The newest whole checkpoint of the run, the same for all processes; None for a new run.

    Raises:
        ConfigError: there is one and the configuration forbids to continue, or the processes see
            different ones.
    """
    if config.resume == "never":
        if checkpoint.step_folders(config.out):
            raise ConfigError(
                f"{config.out} holds checkpoints and resume is never; give another --out, "
                "or --resume auto to continue"
            )
        return None
    found = checkpoint.newest(config.out, print if process.is_first else lambda _: None)
    step = -1 if found is None else found.step
    seen = torch.tensor([step, -step], device=process.device)
    low, negative_high = process.minimum(seen).tolist()
    if low != -negative_high:
        raise ConfigError(
            f"the processes see different checkpoints in {config.out} (steps {low} and "
            f"{-negative_high}); put the run on a file system that all of them share"
        )
    return found


def check_same_run(config: TrainConfig, found: Checkpoint, pack: Pack) -> None:
    """ConfigError where the configuration would continue another run than ``found`` is of."""
    now = plain(config)
    pairs: list[tuple[str, Any, Any]] = [
        (name, found.config.get(name), now[name]) for name in ("task", "seed")
    ]
    for group, names in _SAME.items():
        old = found.config.get(group, {})
        pairs += [(f"{group}.{name}", old.get(name), now[group][name]) for name in names]
    begun_with, own = Preprocessing.of_checkpoint(found.config), config.input.preprocessing
    pairs += [
        (f"input.{field.name}", getattr(begun_with, field.name), getattr(own, field.name))
        for field in fields(Preprocessing)
    ]
    batch = found.config.get("train", {}).get("global_batch")
    pairs.append(("train.global_batch", batch, config.train.global_batch))
    pairs.append(("the pack's fingerprint", found.training.get("pack"), pack.manifest.fingerprint))
    for name, old, new in pairs:
        if old != new:
            raise ConfigError(
                f"{config.out} was begun with {name} {old}, it is now {new}; "
                "set it back or give another --out"
            )


def restore(
    config: TrainConfig,
    found: Checkpoint,
    network: ReSeND | Classifier,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Bring network and optimiser to where ``found`` left them."""
    fit(network, found.weights, f"checkpoint of step {found.step} in {config.out}")
    optimizer.load_state_dict(found.training["optimizer"])
