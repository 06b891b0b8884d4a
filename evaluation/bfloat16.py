"""What a lower precision does to the relational logits, measured before it is trusted."""

import numpy as np
import torch

from evaluation.features import run_backbone
from evaluation.trained import Trained
from model.pairwise import relational_logits
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError

_SAMPLES = 32
_LIMIT = 0.05


def logit_error(
    trained: Trained,
    pack: Pack,
    rows: np.ndarray,
    process: Process,
    config: InputConfig,
    precision: torch.dtype,
) -> float:
    """Root mean square change of the logits of some of the images ``rows``, int64 (N,), each
    with each, against float32, in standard deviations of those logits.

    Raises:
        ConfigError: it exceeds 0.05.
    """
    chosen = rows[np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)]
    exact, rough = (
        _logits(trained, pack, chosen, process, config, dtype)
        for dtype in (torch.float32, precision)
    )
    apart = ~torch.eye(len(chosen), dtype=torch.bool, device=exact.device)
    error = ((rough - exact)[apart].square().mean().sqrt() / exact[apart].std()).item()
    if not error <= _LIMIT:
        raise ConfigError(
            f"{precision} changes the logits by {error:.3f} of their standard deviation, more than "
            f"{_LIMIT}; use --precision float32"
        )
    return error


def _logits(
    trained: Trained,
    pack: Pack,
    rows: np.ndarray,
    process: Process,
    config: InputConfig,
    dtype: torch.dtype,
) -> torch.Tensor:
    features = run_backbone(trained, pack, rows, process, config, len(rows), dtype)
    return relational_logits(trained.network.relation, features, features, dtype=dtype)
