"""Sheets of the pairs that the network is trained on, with its logits."""

from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import Tensor

from model.config import Preprocessing
from pipelines.loader import PairBatch
from pipelines.pack import Pack
from pipelines.show import pair_sheet

_OF_EACH = 4  # pairs of the same class, and pairs of different classes


class JudgedPairs(NamedTuple):
    """The pairs of a training step, as the network saw and judged them.

    Attributes:
        batch: their images; ``right`` has the partners that were judged.
        logits: float32 (p,), without gradient, high for pairs that look different.
    """

    batch: PairBatch
    logits: Tensor

    def sheet(self, pack: Pack, preprocessing: Preprocessing, step: int) -> Image.Image:
        """The first pairs of the same class and the first ones of different classes, as they were
        before step ``step`` changed the weights; pairs with a mean of images are left out."""
        batch = self.batch
        different = batch.different.cpu().numpy()
        of_images = (batch.right < len(batch.images)).cpu().numpy()
        chosen = [np.flatnonzero(of_images & (different == kind))[:_OF_EACH] for kind in (0, 1)]
        pairs = np.concatenate(chosen)
        logits = self.logits[pairs].tolist()
        title = f"step {step}: pairs with a logit above 0 are judged to be of different classes"
        figure = pair_sheet(batch, pairs.tolist(), pack, preprocessing, logits)
        figure.suptitle(title)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
