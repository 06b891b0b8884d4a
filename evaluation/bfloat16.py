"""Measures the error that bfloat16 causes in the relational logits, or in the cosines of a bare
backbone, and refuses a large one."""

from dataclasses import replace

import numpy as np
import torch

from evaluation.extractor import FeatureExtractor
from model.config import Precision
from model.distances import cosine
from model.pairwise import relational_logits
from runtime.errors import ConfigError

_SAMPLES = 32
_LIMIT = 0.05


def logit_error(extractor: FeatureExtractor, rows: np.ndarray) -> float:
    """RMS error of the pairwise logits of up to 32 of the images ``rows``, int64 (N,), at the
    extractor's precision, in units of the standard deviation of the float32 logits; without a
    relational module, of their cosine distances.

    Raises:
        ConfigError: it exceeds 0.05.
    """
    chosen = rows[np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)]
    precision = extractor.config.precision
    exact, rough = (_logits(extractor, chosen, p) for p in ("float32", precision))
    apart = ~torch.eye(len(chosen), dtype=torch.bool, device=exact.device)
    error = ((rough - exact)[apart].square().mean().sqrt() / exact[apart].std()).item()
    if not error <= _LIMIT:
        raise ConfigError(
            f"{precision} changes the {_what(extractor)} by {error:.3f} of their standard "
            f"deviation, more than {_LIMIT}; use --precision float32"
        )
    return error


def _what(extractor: FeatureExtractor) -> str:
    return "cosines" if extractor.network.network.relation is None else "logits"


def _logits(extractor: FeatureExtractor, rows: np.ndarray, precision: Precision) -> torch.Tensor:
    config = replace(extractor.config, precision=precision, batch_size=len(rows))
    features = replace(extractor, config=config).run(rows)
    relation = extractor.network.network.relation
    if relation is None:
        return cosine(features, features)
    return relational_logits(relation, features, features, dtype=getattr(torch, precision))
