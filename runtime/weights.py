"""Reading a backbone's weights from any of the places where they come from."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from runtime.checkpoint import load_weights, read_safetensors, read_tensors
from runtime.errors import CheckpointError

_CLASSIFIERS = ("fc.", "head.", "head_dist.", "classifier.")


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Copy weights into a backbone, strictly; a classifier in the file is left out.

    Args:
        backbone: a timm model without classifier.
        path: a run or a checkpoint of ours, whose network has a ``backbone``; or a ``.safetensors``
            file or a state dict written by ``torch.save``, with the names of timm or torchvision.

    Raises:
        CheckpointError: the file is missing or damaged, lacks a weight, has one too many, or one of
            another shape.
    """
    path = Path(path)
    weights = _named_as_timm(_read(path))
    own = backbone.state_dict()
    weights = {
        name: tensor
        for name, tensor in weights.items()
        if name in own or not name.startswith(_CLASSIFIERS)
    }
    fit(backbone, weights, str(path))


def fit(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load ``weights`` strictly; CheckpointError names the first keys that do not fit."""
    own = module.state_dict()
    for what, names in (
        ("lacks", [name for name in own if name not in weights]),
        ("has the unknown", [name for name in weights if name not in own]),
        (
            "has another shape of",
            [name for name in own if name in weights and own[name].shape != weights[name].shape],
        ),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{source} {what} {', '.join(names[:3])}{more}; "
                "it was made by another architecture, set model.* as it was"
            )
    module.load_state_dict(dict(weights))


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        return load_weights(path)[0]
    if not path.exists():
        raise CheckpointError(f"no weights at {path}; give a run, a checkpoint or a weights file")
    values = read_safetensors(path) if path.suffix == ".safetensors" else read_tensors(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise CheckpointError(f"{path} holds no state dict: a mapping of names to tensors")
    return values


def _named_as_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without ``module.`` in front, and the part under ``backbone.`` where there is one."""
    named = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    inner = {
        name.removeprefix("backbone."): tensor
        for name, tensor in named.items()
        if name.startswith("backbone.")
    }
    return inner or named
