"""Continuing a run: from which checkpoint, and whether it is the same run."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig, Preprocessing
from model.network import Classifier, ReSeND
from pipelines.config import SamplingConfig
from pipelines.pack import Pack
from runtime import checkpoint
from runtime.checkpoint import Checkpoint
from runtime.config import plain
from runtime.distributed import Process
from runtime.errors import CheckpointError, ConfigError
from runtime.weights import load_strictly
from training.config import TrainConfig

# Of ``model`` the fields of ModelConfig: where the backbone started no longer matters.
_SAME: dict[str, tuple[str, ...]] = {
    "data": ("domains", "classes", "splits", "num_negatives", "balanced"),
    "model": tuple(field.name for field in fields(ModelConfig)),
    "optimizer": ("name",),
}


def find(config: TrainConfig, process: Process) -> Checkpoint | None:
    """The newest checkpoint of the run, the same for all processes; None for a new run.

    Raises:
        ConfigError: there is one and the configuration forbids resuming, or the processes see
            different ones.
        CheckpointError: it is damaged, or has no training state.
    """
    if config.resume == "never":
        if checkpoint.step_folders(config.out):
            raise ConfigError(
                f"{config.out} holds checkpoints and resume is never; give another --out, "
                "or --resume auto to continue"
            )
        return None
    found, failure = None, None
    try:
        found = checkpoint.newest(config.out)
    except CheckpointError as error:
        failure = error
    if process.maximum(float(failure is not None)):
        raise failure or CheckpointError(
            f"another process cannot read {config.out}; see its message"
        )
    step = -1 if found is None else found.step or 0
    if not process.same(step):
        raise ConfigError(
            f"the processes see different checkpoints in {config.out} (this one: "
            f"{'none' if found is None else f'step {step}'}); put the run on a file system that "
            "all of them share"
        )
    return found


def saved_batch(found: Checkpoint) -> int:
    """The global batch that the run was started with."""
    batch = found.setting("train", "global_batch")
    if not isinstance(batch, int) or batch < 1:
        raise CheckpointError(f"{found.path} has no train.global_batch in its config.yaml")
    return batch


def check_same_run(config: TrainConfig, found: Checkpoint, pack: Pack) -> None:
    """Raise ConfigError unless ``config`` describes the same run as the checkpoint ``found``."""
    now = plain(config)
    pairs: list[tuple[str, Any, Any]] = [
        (name, found.setting(name), now[name]) for name in ("task", "seed")
    ]
    for group, names in _SAME.items():
        pairs += [
            (f"{group}.{name}", found.setting(group, name), now[group][name]) for name in names
        ]
    packs = found.setting("data", "packs") or [], now["data"]["packs"]
    pairs.append(("data.packs", *map(_without_paths, packs)))
    # Runs of older versions lack keys, or all of them: they have independent pairs.
    begun_with_sampling = found.setting("data", "sampling") or {}
    if isinstance(begun_with_sampling, dict):
        begun_with_sampling = plain(SamplingConfig()) | begun_with_sampling
    pairs.append(("data.sampling", begun_with_sampling, now["data"]["sampling"]))
    begun_with, own = Preprocessing.of_checkpoint(found.config), config.input.preprocessing
    pairs += [
        (f"input.{field.name}", getattr(begun_with, field.name), getattr(own, field.name))
        for field in fields(Preprocessing)
    ]
    # Runs of older versions, without the key, train the backbone.
    begun_backbone = found.setting("train", "backbone") or "trained"
    pairs.append(("train.backbone", begun_backbone, config.train.backbone))
    if config.train.frozen:
        pairs.append(("train.views", found.setting("train", "views"), config.train.views))
    pairs.append(("train.global_batch", saved_batch(found), config.train.global_batch))
    pairs.append(("the pack's fingerprint", found.training.get("pack"), pack.manifest.fingerprint))
    for name, old, new in pairs:
        if old != new:
            raise ConfigError(
                f"{config.out} was started with {name} {old}, now it is {new}; "
                "set it back or give another --out"
            )


def _without_paths(packs: Any) -> Any:
    """``data.packs`` of a configuration, which a checkpoint may have spoiled, without its paths."""
    if not isinstance(packs, list) or not all(isinstance(pack, dict) for pack in packs):
        return packs
    return [{name: value for name, value in pack.items() if name != "pack"} for pack in packs]


def restore(
    found: Checkpoint, network: ReSeND | Classifier, optimizer: torch.optim.Optimizer
) -> None:
    """Restore network and optimizer from ``found``.

    Of the optimizer only the state is restored; learning rate, momentum etc. come from the
    configuration.

    Raises:
        CheckpointError: the checkpoint does not fit the network or the optimizer.
    """
    load_strictly(network, found.weights, str(found.path))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    saved = found.training.get("optimizer")
    state = saved.get("state") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(number, int)
        and 0 <= number < len(parameters)
        and _fits(values, parameters[number])
        for number, values in state.items()
    ):
        raise CheckpointError(f"{found.path} has an optimizer state that does not fit the network")
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _fits(values: Any, parameter: Tensor) -> bool:
    """Whether ``values`` are finite tensors of the parameter's shape, or single numbers."""
    return isinstance(values, dict) and all(
        value is None
        or isinstance(value, int | float)
        or (
            isinstance(value, Tensor)
            and value.shape in (parameter.shape, torch.Size([]))
            and bool(value.isfinite().all())
        )
        for value in values.values()
    )
