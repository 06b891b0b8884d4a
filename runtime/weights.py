"""Loads a backbone's weights from checkpoints, ``.safetensors`` files and state dicts."""

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from runtime.checkpoint import AVERAGED, WEIGHTS, load_weights
from runtime.checksums import CHECKSUMS
from runtime.errors import CheckpointError, ConfigError, first_line
from runtime.tensor_files import read_state_dict

_CLASSIFIERS = ("fc.", "head.", "head_dist.", "classifier.")
_COUNTER = "num_batches_tracked"  # of BatchNorm; files older than PyTorch 0.4.1 have none


@contextlib.contextmanager
def fetching(backbone: str, option: str) -> Iterator[None]:
    """Fetch timm's weights of ``backbone`` inside; the hub's warnings about its retries are left
    out.

    Raises:
        ConfigError: they cannot be fetched; it names ``option``, which takes a file instead.
    """
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"cannot fetch the weights of {backbone} ({first_line(error)}); "
            f"without network access, give a file as {option}"
        ) from error
    finally:
        hub.setLevel(level)


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Copy weights into a backbone, strictly; a classifier in the file is ignored, the counters of
    BatchNorm, which evaluation does not use, may be missing, and position embeddings for images of
    another size are interpolated.

    Args:
        backbone: a timm model without classifier.
        path: a run or a checkpoint of ours, whose network has a ``backbone``; or a ``.safetensors``
            file or a state dict written by ``torch.save``, with the names of timm or torchvision.

    Raises:
        CheckpointError: the file is missing or damaged, lacks a weight, has an unknown one, or one
            of a different shape.
    """
    path = Path(path)
    weights = _named_as_timm(_read(path))
    own = backbone.state_dict()
    counters = {name: tensor for name, tensor in own.items() if name.endswith(_COUNTER)}
    weights = counters | {
        name: tensor
        for name, tensor in weights.items()
        if name in own or not name.startswith(_CLASSIFIERS)
    }
    load_strictly(backbone, _interpolate_positions(backbone, weights), str(path))


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy ``weights`` into ``module``; CheckpointError names the first keys that do not fit."""
    own = module.state_dict()
    shared = [name for name in own if name in weights]
    for what, names in (
        ("lacks", [name for name in own if name not in weights]),
        ("has the unknown", [name for name in weights if name not in own]),
        (
            "has a different shape of",
            [name for name in shared if own[name].shape != weights[name].shape],
        ),
        (
            "has a different data type in",
            [
                name
                for name in shared
                if own[name].is_floating_point() != weights[name].is_floating_point()
            ],
        ),
    ):
        if names:
            raise CheckpointError(
                f"{source} {what} {_listed(names)}; "
                "it is of a different architecture; name the one that it was made with"
            )
    infinite = [name for name in shared if not weights[name].isfinite().all()]
    if infinite:
        raise CheckpointError(
            f"{source} has numbers that are not finite in {_listed(infinite)}; use an older one"
        )
    module.load_state_dict(dict(weights))


def _interpolate_positions(
    backbone: nn.Module, weights: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The weights with ``pos_embed`` (1, P + H * W, D), for P prefix tokens and a grid of H x W
    patches, resampled to the backbone's grid where that is what differs."""
    own, given = backbone.state_dict().get("pos_embed"), weights.get("pos_embed")
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if own is None or given is None or grid is None or own.ndim != 3 or given.ndim != 3:
        return weights
    num_prefix = own.shape[1] - math.prod(grid)
    side = math.isqrt(max(0, given.shape[1] - num_prefix))
    if side < 1 or given.shape != (1, num_prefix + side**2, own.shape[2]):
        return weights
    resampled = resample_abs_pos_embed(given, list(grid), num_prefix_tokens=num_prefix)
    return {**weights, "pos_embed": resampled}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _read(path: Path) -> dict[str, Tensor]:
    in_checkpoint = path.name in (WEIGHTS, AVERAGED) and os.path.exists(path.parent / CHECKSUMS)
    if os.path.isdir(path) or in_checkpoint:
        return load_weights(path).weights
    if not os.path.exists(path):
        raise CheckpointError(f"no weights at {path}; give a run, a checkpoint or a weights file")
    return read_state_dict(path)


def _named_as_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part under ``backbone.`` where there is one, else all of it."""
    inner = {
        name.removeprefix("backbone."): tensor
        for name, tensor in weights.items()
        if name.startswith("backbone.")
    }
    return inner or dict(weights)
