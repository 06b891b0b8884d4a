"""Checkpoints: written completely or not at all, and verified on every read.

RUN/checkpoints/step-00000100/
  weights.safetensors   the network
  averaged.safetensors  the network with its weights averaged over the steps, if they are
  config.yaml           the configuration that made it
  metrics.json          the last metrics
  training.pt           optimizer state and the pack's fingerprint (tensors and plain values)
  checksums.json        size and sha256 of the files above
"""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from runtime.checksums import is_recorded, update_checksum, verify_checksums, write_checksums
from runtime.errors import CheckpointError, first_line
from runtime.files import sync, write_atomically
from runtime.tensor_files import read_safetensors, read_tensors
from runtime.untrusted import read_text, read_yaml_mapping

WEIGHTS, AVERAGED, CONFIG, METRICS, TRAINING = (
    "weights.safetensors",
    "averaged.safetensors",
    "config.yaml",
    "metrics.json",
    "training.pt",
)
_STEP = re.compile(r"step-(\d{8})")
_PARTIAL = ".step-*.partial"
MAX_STEP = 10**8 - 1  # eight digits, so that the order of the names is that of the steps


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: its folder, or the weights file that was asked for.
        step: steps done; None for weights outside a step folder.
        weights: a state dict of the network, on the CPU.
        config: its ``config.yaml``, a mapping that may hold anything; see ``setting``.
        training: its ``training.pt``, a mapping that may hold anything; empty where only the
            weights were read.
        verified: whether the files were compared with checksums; older checkpoints have none.
        is_averaged: whether ``weights`` are those averaged over the steps.
        averaged: with the training state, the averaged weights beside ``weights``, if there are.
    """

    path: Path
    step: int | None
    weights: dict[str, Tensor]
    config: dict[str, Any]
    training: dict[str, Any]
    verified: bool
    is_averaged: bool = False
    averaged: dict[str, Tensor] | None = None

    def setting(self, group: str, name: str | None = None) -> Any:
        """The configuration's value of ``group``, or of ``name`` in it; None where it is absent."""
        value = self.config.get(group)
        if name is None:
            return value
        return value.get(name) if isinstance(value, dict) else None


class TrainingState(NamedTuple):
    """What a run needs besides its weights in order to continue.

    Attributes:
        values: tensors and plain values.
        averaged: the state dict of the averaged network; None where weights are not averaged.
    """

    values: Mapping[str, Any]
    averaged: Mapping[str, Tensor] | None = None


def save(
    run: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    training: TrainingState | None = None,
) -> Path:
    """Write a checkpoint under a temporary name, sync it to the disk and rename it.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it could not be written (e.g. disk full, or this step already has one);
            existing checkpoints are untouched.
    """
    target = run / "checkpoints" / f"step-{step:08d}"
    temporary = target.parent / f".{target.name}.partial"
    try:
        for leftover in target.parent.glob(_PARTIAL):  # of a killed process
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        (temporary / CONFIG).write_text(
            yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8"
        )
        mode = (temporary / CONFIG).stat().st_mode
        _write_weights(temporary / WEIGHTS, weights, mode)
        (temporary / METRICS).write_text(json.dumps({"step": step, **metrics}, indent=1) + "\n")
        if training is not None:
            torch.save(dict(training.values), temporary / TRAINING)
            if training.averaged is not None:
                _write_weights(temporary / AVERAGED, training.averaged, mode)
        write_checksums(temporary)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        temporary.rename(target)
        sync(target.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write checkpoint {target}: {first_line(error)}; "
            "existing checkpoints are untouched, fix this and rerun to continue"
        ) from error
    return target


def add_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Add metrics that were measured after saving.

    A crash in between leaves either the old metrics, or new ones that do not match their checksum;
    a checkpoint in that state is never pruned.

    Raises:
        CheckpointError: they could not be written.
    """
    try:
        known = _read_metrics(folder)
        content = json.dumps({**known, **metrics}, indent=1) + "\n"
        write_atomically(folder / METRICS, content.encode())
        update_checksum(folder, METRICS)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {folder / METRICS}: {first_line(error)}; "
            "the checkpoint is untouched, fix this and rerun to continue"
        ) from error


def prune(run: Path, keep: int, best: str) -> None:
    """Delete all but the newest ``keep`` checkpoints and the one with the best metric ``best``.

    A checkpoint whose metrics are damaged is kept, since it may be the best one.

    Raises:
        CheckpointError: a checkpoint cannot be deleted.
    """
    kept = set(step_folders(run)[:keep])
    scored = []
    for folder in step_folders(run):
        try:
            value = _read_metrics(folder).get(best)
        except CheckpointError:
            kept.add(folder)
            continue
        if isinstance(value, int | float) and math.isfinite(value):
            scored.append((value, folder))
    if scored:
        kept.add(max(scored)[1])
    for folder in step_folders(run):
        if folder not in kept:
            _delete(folder)


def step_folders(run: Path) -> list[Path]:
    """The run's checkpoints, newest first, whether or not they can be read."""
    try:
        names = [path for path in (run / "checkpoints").iterdir() if _STEP.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"cannot list {run / 'checkpoints'}: {first_line(error)}") from error
    return sorted(names, reverse=True)


def newest(run: Path) -> Checkpoint | None:
    """The run's newest checkpoint with its training state; None where there is no checkpoint.

    Raises:
        CheckpointError: it is damaged. No older one is taken in its place: the steps since would
            be lost without notice.
    """
    folders = step_folders(run)
    if not folders:
        return None
    try:
        return _read(folders[0], folders[0] / WEIGHTS, with_training=True)
    except CheckpointError as error:
        older = f"from {folders[1].name}" if len(folders) > 1 else "from the start"
        raise CheckpointError(
            f"{error}; delete {folders[0]} to continue {older}, or choose another --out"
        ) from error


def load_weights(path: str | Path) -> Checkpoint:
    """A network's weights and their configuration, without the training state.

    Args:
        path: a run, whose newest checkpoint is taken; a checkpoint's folder, of which the averaged
            weights are taken if it has them; or one of its ``.safetensors`` files.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and os.path.exists(path):
        return _read(path, path)
    if os.path.exists(path / WEIGHTS) or _STEP.fullmatch(path.name):
        return _read(path, _preferred_weights(path))
    folders = step_folders(path)
    if not folders:
        raise CheckpointError(
            f"no checkpoint at {path}; give a run's folder, one of its step folders, "
            "or a .safetensors file"
        )
    try:
        return _read(folders[0], _preferred_weights(folders[0]))
    except CheckpointError as error:
        others = f"; give an older one, {folders[1]}" if len(folders) > 1 else ""
        raise CheckpointError(f"{error}{others}") from error


def _read(path: Path, weights: Path, *, with_training: bool = False) -> Checkpoint:
    folder = weights.parent
    match = _STEP.fullmatch(folder.name)
    averaged = with_training and _has_averaged(folder)
    of_training = [TRAINING, *([AVERAGED] if averaged else [])] if with_training else []
    verified = verify_checksums(folder, (weights.name, CONFIG, *of_training))
    training = read_tensors(folder / TRAINING) if with_training else {}
    if not isinstance(training, dict):
        raise CheckpointError(f"cannot read {folder / TRAINING}: it does not hold a mapping")
    try:
        config = read_yaml_mapping(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {folder / CONFIG}: {first_line(error)}") from error
    return Checkpoint(
        path=path,
        step=int(match[1]) if match else None,
        weights=read_safetensors(weights),
        config=config,
        training=training,
        verified=verified,
        is_averaged=weights.name == AVERAGED,
        averaged=read_safetensors(folder / AVERAGED) if averaged else None,
    )


def _preferred_weights(folder: Path) -> Path:
    return folder / (AVERAGED if _has_averaged(folder) else WEIGHTS)


def _has_averaged(folder: Path) -> bool:
    """Whether a checkpoint has averaged weights, or had them: then reading it reports the loss."""
    return os.path.exists(folder / AVERAGED) or is_recorded(folder, AVERAGED)


def _write_weights(path: Path, weights: Mapping[str, Tensor], mode: int) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, path)
    # safetensors makes its files readable by their owner only, whatever the umask.
    path.chmod(mode)


def _read_metrics(folder: Path) -> dict[str, Any]:
    verify_checksums(folder, (METRICS,))
    try:
        metrics = json.loads(read_text(folder / METRICS))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {folder / METRICS}: {first_line(error)}") from error
    if not isinstance(metrics, dict):
        raise CheckpointError(f"cannot read {folder / METRICS}: it does not hold a mapping")
    return metrics


def _delete(folder: Path) -> None:
    """Delete a checkpoint; a partly deleted one is never mistaken for a checkpoint."""
    try:
        shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.partial")))
    except OSError as error:
        raise CheckpointError(f"cannot delete checkpoint {folder}: {first_line(error)}") from error
