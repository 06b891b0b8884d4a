"""A contact sheet of training pairs."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from model.config import PAPER_PREPROCESSING
from pipelines.loader import PairBatch
from pipelines.pack import Pack
from runtime.errors import ConfigError

_PAIRS_PER_LINE = 4


def show(batch: PairBatch, num_pairs: int, pack: Pack, out: Path, title: str) -> None:
    """Draw the first pairs of ``batch``, normalized by the default preprocessing, on one page.

    Raises:
        ConfigError: matplotlib does not support the image format of ``out``.
        OSError: ``out`` cannot be written.
    """
    lines = -(-num_pairs // _PAIRS_PER_LINE)
    figure, axes = plt.subplots(
        lines,
        _PAIRS_PER_LINE,
        figsize=(14, 0.6 + 2.4 * lines),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[num_pairs:]:
        axis.axis("off")
    for pair, axis in enumerate(axes.flat[:num_pairs]):
        _draw(axis, pair, batch, pack)
    figure.suptitle(title)
    try:
        figure.savefig(out, dpi=100)
    except ValueError as error:
        raise ConfigError(f"--out {out}: {error}") from error


def _draw(axis: Axes, pair: int, batch: PairBatch, pack: Pack) -> None:
    """Draw the anchor and partner of ``pair`` side by side, in a frame colored by the answer."""
    different = bool(batch.different[pair])
    color = "tab:red" if different else "tab:green"
    items = [int(batch.left[pair]), int(batch.right[pair])]
    anchor, partner = _pixels(batch.images[items])
    gap = np.full((len(anchor), max(1, len(anchor) // 16), 3), 255, dtype=np.uint8)
    axis.imshow(np.concatenate([anchor, gap, partner], axis=1))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=color, linewidth=3)
    axis.set_title("different classes" if different else "same class", fontsize=8, color=color)
    rows = batch.rows[items]
    names = [pack.manifest.classes[label] for label in pack.index.label[rows]]
    for x, name, key in zip((0.25, 0.75), names, pack.keys(rows), strict=True):
        axis.text(
            x, -0.04, f"{name}\n{key}", transform=axis.transAxes, fontsize=7, ha="center", va="top"
        )


def _pixels(images: torch.Tensor) -> np.ndarray:
    """Normalized images (n, 3, S, S) as uint8 (n, S, S, 3)."""
    mean, std = torch.tensor(PAPER_PREPROCESSING.mean), torch.tensor(PAPER_PREPROCESSING.std)
    pixels = images.float().cpu().permute(0, 2, 3, 1) * std + mean
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8).numpy()
