"""A contact sheet of training pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.config import Preprocessing
from pipelines.loader import PairBatch
from pipelines.pack import Pack
from runtime.errors import ConfigError

_PAIRS_PER_LINE = 4


def save_sheet(figure: Figure, out: Path) -> None:
    """Write a sheet to a file.

    Raises:
        ConfigError: matplotlib does not support the image format of ``out``.
        OSError: ``out`` cannot be written.
    """
    try:
        figure.savefig(out, dpi=100)
    except ValueError as error:
        raise ConfigError(f"--out {out}: {error}") from error


def pair_sheet(
    batch: PairBatch,
    pairs: Sequence[int],
    pack: Pack,
    preprocessing: Preprocessing,
    logits: Sequence[float] | None = None,
) -> Figure:
    """Draw pairs on one page.

    Args:
        batch: holds them; its images are normalized by ``preprocessing``.
        pairs: their numbers in the batch; each of two images, none a mean of several.
        pack: has the names of the images.
        preprocessing: that of the images.
        logits: one for each of ``pairs``, to be shown with it.
    """
    lines = max(1, -(-len(pairs) // _PAIRS_PER_LINE))
    figure = Figure(figsize=(14, 0.6 + 2.4 * lines), layout="constrained")
    axes = figure.subplots(lines, _PAIRS_PER_LINE, squeeze=False)
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    for number, (pair, axis) in enumerate(zip(pairs, axes.flat, strict=False)):
        note = "" if logits is None else f", logit {logits[number]:+.2f}"
        _draw(axis, pair, batch, pack, preprocessing, note)
    return figure


def _draw(
    axis: Axes, pair: int, batch: PairBatch, pack: Pack, preprocessing: Preprocessing, note: str
) -> None:
    """Draw the anchor and partner of ``pair`` side by side, in a frame colored by the answer, which
    is written above them, followed by ``note``."""
    different = bool(batch.different[pair])
    color = "tab:red" if different else "tab:green"
    items = [int(batch.left[pair]), int(batch.right[pair])]
    anchor, partner = _pixels(batch.images[items], preprocessing)
    gap = np.full((len(anchor), max(1, len(anchor) // 16), 3), 255, dtype=np.uint8)
    axis.imshow(np.concatenate([anchor, gap, partner], axis=1))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=color, linewidth=3)
    answer = "different classes" if different else "same class"
    axis.set_title(answer + note, fontsize=8, color=color)
    rows = batch.rows[items]
    names = [pack.manifest.classes[label] for label in pack.index.label[rows]]
    for x, name, key in zip((0.25, 0.75), names, pack.keys(rows), strict=True):
        axis.text(
            x, -0.04, f"{name}\n{key}", transform=axis.transAxes, fontsize=7, ha="center", va="top"
        )


def _pixels(images: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """Normalized images (n, 3, S, S) as uint8 (n, S, S, 3)."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    pixels = images.float().cpu().permute(0, 2, 3, 1) * std + mean
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8).numpy()
