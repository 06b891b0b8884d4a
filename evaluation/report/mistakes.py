"""Where an evaluator is wrong: confusions, and its most confident mistakes."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.results import EvaluatorResult
from model.metrics import threshold_at_recall
from pipelines.pack import Pack

_THUMBNAIL = 112  # pixels, the longer side
_NUM_MISTAKES = 24


@dataclass(frozen=True)
class Mistake:
    """A test image on the wrong side of the threshold.

    Attributes:
        position: its index in the target's test images.
        known: whether it belongs to a known class.
        predicted: the known class that it is nearest to.
        normality: its score.
    """

    position: int
    known: bool
    predicted: int
    normality: float


def most_confident(test_class: np.ndarray, result: EvaluatorResult) -> list[Mistake]:
    """Up to 24 unknown images taken for known, and known taken for unknown, at 95 % recall.

    Half of each kind if there are enough; within a kind, those farthest from the threshold first.
    """
    known = test_class >= 0
    normality = result.normality
    accepted = normality >= threshold_at_recall(known, normality)
    order = np.argsort(-normality, kind="stable")
    taken_in = order[(accepted & ~known)[order]]
    turned_away = order[(~accepted & known)[order]][::-1]
    half = _NUM_MISTAKES // 2
    num_in = min(len(taken_in), max(half, _NUM_MISTAKES - len(turned_away)))
    chosen = [*taken_in[:num_in], *turned_away[: _NUM_MISTAKES - num_in]]
    return [
        Mistake(int(p), bool(known[p]), int(result.predicted[p]), float(normality[p]))
        for p in chosen
    ]


def confusion(test_class: np.ndarray, result: EvaluatorResult, num_classes: int) -> np.ndarray:
    """Counts, int64 (K + 1, K + 1), of true by predicted class at 95 % recall of the known.

    The last row holds the unknown images, the last column those that were taken for unknown.
    """
    accepted = result.normality >= threshold_at_recall(test_class >= 0, result.normality)
    truth = np.where(test_class >= 0, test_class, num_classes)
    given = np.where(accepted, result.predicted, num_classes)
    size = num_classes + 1
    return np.bincount(truth * size + given, minlength=size * size).reshape(size, size)


def nearest(feature: Tensor, features: Tensor) -> int:
    """Position of that of the ``features`` (n, D) with the highest cosine to ``feature`` (D,)."""
    return int(torch.cosine_similarity(features, feature, dim=1).argmax())


def thumbnail(pack: Pack, row: int) -> str:
    """A small JPEG of the image as a ``data:`` URL."""
    return data_url(pack.read(np.array([row]))[0].tobytes())


def data_url(encoded: bytes) -> str:
    """A small JPEG of an encoded image as a ``data:`` URL."""
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
