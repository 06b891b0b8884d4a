"""Checkpoints: written whole or not at all, found again, read without unpickling anything.

RUN/checkpoints/step-00000100/
  weights.safetensors   the network
  config.yaml           the configuration that made it
  metrics.json          what was last measured
  training.pt           optimiser state and step (tensors and plain values only)
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.errors import CheckpointError, first_line

WEIGHTS, CONFIG, METRICS, TRAINING = (
    "weights.safetensors",
    "config.yaml",
    "metrics.json",
    "training.pt",
)
_STEP = re.compile(r"step-(\d{8})")
_DAMAGE = (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError, yaml.YAMLError)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: steps done.
        weights: the network's state dict, on the CPU.
        config: the configuration that made it, as ``runtime.config.plain`` gives it.
        training: optimiser state, as it was given to ``save``.
    """

    step: int
    weights: dict[str, Tensor]
    config: dict[str, Any]
    training: dict[str, Any]


def save(
    run: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint under a temporary name, sync it to the disk and rename it.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it could not be written, for want of space for instance. Those that are
            already there are as they were.
    """
    target = run / "checkpoints" / f"step-{step:08d}"
    temporary = target.parent / f".{target.name}.partial"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(tensors, temporary / WEIGHTS)
        (temporary / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False))
        (temporary / METRICS).write_text(json.dumps({"step": step, **metrics}, indent=1) + "\n")
        if training is not None:
            torch.save(dict(training), temporary / TRAINING)
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        _sync(target.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write checkpoint {target}: {first_line(error)}; "
            "the earlier ones are untouched, make room and start again to continue"
        ) from error
    return target


def prune(run: Path, keep: int, best: str) -> None:
    """Delete all but the newest ``keep`` checkpoints and the one with the best metric ``best``."""
    folders = step_folders(run)
    kept = set(folders[:keep])
    measured = [(_metric(folder, best), folder) for folder in folders]
    scored = [(value, folder) for value, folder in measured if value is not None]
    if scored:
        kept.add(max(scored)[1])
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder)


def step_folders(run: Path) -> list[Path]:
    """The run's checkpoints, newest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _STEP.fullmatch(path.name)), reverse=True)


def newest(run: Path, report: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole; each damaged one is reported and skipped."""
    for folder in step_folders(run):
        try:
            return _read(folder)
        except CheckpointError as error:
            report(f"skipped: {error}")
    return None


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A network's state dict and the configuration beside it.

    Args:
        path: a run (its newest whole checkpoint is taken), a checkpoint's folder, or its
            ``weights.safetensors``.

    Raises:
        CheckpointError: there is nothing of the kind, or nothing whole.
    """
    path = Path(path)
    folders = step_folders(path) if path.is_dir() and not (path / WEIGHTS).exists() else [path]
    if not path.exists() or not folders:
        raise CheckpointError(
            f"no checkpoint at {path}; give a run's folder, one of its step folders, "
            "or a .safetensors file"
        )
    problems = []
    for folder in folders:
        file = folder if folder.suffix == ".safetensors" else folder / WEIGHTS
        try:
            return read_safetensors(file), _read_config(file.with_name(CONFIG))
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("; ".join(problems))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; CheckpointError where it is missing or damaged."""
    try:
        return load_file(path)
    except _DAMAGE as error:
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error


def read_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors and plain values, nothing else is unpickled.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error


def _read(folder: Path) -> Checkpoint:
    match = _STEP.fullmatch(folder.name)
    if match is None:
        raise CheckpointError(f"{folder} is no checkpoint; its name should be step-NNNNNNNN")
    return Checkpoint(
        step=int(match[1]),
        weights=read_safetensors(folder / WEIGHTS),
        config=_read_config(folder / CONFIG),
        training=read_tensors(folder / TRAINING),
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"cannot read {path}: it holds no configuration")
    return config


def _metric(folder: Path, name: str) -> float | None:
    try:
        value = json.loads((folder / METRICS).read_text()).get(name)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, int | float) else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
