"""The document: tables and the conditions under which they were made."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import markdown_table
from benchmarks.learning.experiments import WAYS, OnSplit
from benchmarks.learning.features import Source
from benchmarks.learning.scoring import NEIGHBORS, RELATIONS
from benchmarks.learning.splits import CHOICE_SEED, REFERENCES
from benchmarks.learning.training import HEAD_DIM, Budget
from benchmarks.learning.variants import BASE, ON_FROZEN

MARK = "<!-- What follows is written by `python -m benchmarks.learning`. -->"
TITLE = "# Learning the relation on real images\n"


@dataclass(frozen=True)
class Report:
    """All results.

    Attributes:
        source: of the features.
        started: ``time.perf_counter()`` at the start.
        budgets: of the trainings on frozen features, and of fine-tuning.
        choosing: whether the splits are of training classes alone.
        frozen: on each split, on frozen features.
        fine_tuned: on each of some splits, before and after fine-tuning.
    """

    source: Source
    started: float
    budgets: tuple[Budget, Budget]
    choosing: bool
    frozen: list[OnSplit]
    fine_tuned: list[OnSplit] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Into the document ``path``, whose text before the mark stays."""
        text = path.read_text() if path.exists() else TITLE
        path.write_text(f"{text.split(MARK)[0].rstrip()}\n\n{MARK}\n\n{self.text}\n")

    @property
    def text(self) -> str:
        parts = [self._conditions(), "### Distances", _distances(self.frozen)]
        parts += ["### Relations on frozen features", self._of_frozen(), _relations(self.frozen)]
        if self.fine_tuned:
            parts += ["### Fine-tuned backbones", self._of_tuned(), _tuned(self.fine_tuned)]
        return "\n\n".join(parts)

    def _conditions(self) -> str:
        pack, minutes = self.source.pack, (time.perf_counter() - self.started) / 60
        lines = [
            "## Measurements",
            "",
            f"{len(pack.index):,} images of {len(pack.manifest.classes)} classes, features of "
            f"`{self.source.backbone}` (ImageNet weights), torch {torch.__version__}, "
            f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {minutes:.0f} "
            f"minutes in all. {len(self.frozen)} random splits of the classes: three quarters for "
            f"training, an eighth known with {REFERENCES} references each, an eighth unknown; "
            f"k-NN with k = {NEIGHBORS}. Known is the positive class. Values are the mean AUROC ± "
            "its standard deviation over the splits; differences are those within a split.",
        ]
        if self.choosing:
            lines.append(
                f"Only the training classes of the split with seed {CHOICE_SEED} are used, "
                "split again, to choose settings by."
            )
        return "\n".join(lines)

    def _of_frozen(self) -> str:
        b = self.budgets[0]
        return (
            f"`{BASE.name}`, the first row: {b.steps} steps of P = {b.classes} classes x K = "
            f"{b.images} images, {b.negatives} negatives for each positive pair, AdamW at a "
            f"constant {b.lr:g}, weight decay 0.05, a relational module {BASE.width} wide with "
            f"{BASE.depth} block and {BASE.width // HEAD_DIM} heads, one view of each image. Every "
            "other row changes what its name says. *Calibrated*, as a whitened start is unless the "
            "name says otherwise: scale and offset are first fitted to training pairs. The "
            f"difference is that of {RELATIONS[0]} from {best(self.frozen)}, the best distance."
        )

    def _of_tuned(self) -> str:
        b, base = self.budgets[1], self.fine_tuned
        return (
            f"At {b.image_size} x {b.image_size} pixels; {len(base)} of the splits. {b.steps} "
            f"steps of P = {b.classes} x K = {b.images} images, or of as many images in "
            f"independent pairs; AdamW at {b.lr:g}, of the backbone at "
            f"{b.lr * b.backbone_factor:g}; otherwise as above. The whitening of the relation is "
            "that of the published backbone, the whitening of the distance is learned again. In "
            f"parentheses the difference from {best(base)}, the best distance before fine-tuning."
        )


def best(results: Sequence[OnSplit]) -> str:
    """The distance with the highest mean AUROC."""
    names = results[0].distances
    return max(names, key=lambda name: np.mean([r.distances[name] for r in results]))


def _distances(results: Sequence[OnSplit]) -> str:
    top = _of(results, best(results))
    rows = [
        (name, _mean(_of(results, name)), _mean(_of(results, name) - top, signed=True))
        for name in results[0].distances
    ]
    return markdown_table(("distance", "AUROC", f"difference from {best(results)}"), rows)


def _relations(results: Sequence[OnSplit]) -> str:
    top = _of(results, best(results))
    rows = []
    for variant in ON_FROZEN:
        logit, softmax = (_after(results, variant.name, name) for name in RELATIONS)
        works = [result.trained[variant.name].work for result in results]
        pairs, images, seconds = (np.mean(values) for values in zip(*works, strict=True))
        effort = (f"{pairs / 1000:.0f}", f"{images / 1000:.1f}", f"{seconds:.0f}")
        gain = _mean(logit - top, signed=True)
        rows.append((variant.name, *effort, _mean(logit), gain, _mean(softmax)))
    columns = ("relation", "1,000 pairs", "1,000 images", "seconds")
    return markdown_table((*columns, RELATIONS[0], "difference", RELATIONS[1]), rows)


def _tuned(results: Sequence[OnSplit]) -> str:
    top = _of(results, best(results))

    def cell(values: np.ndarray) -> str:
        return f"{_mean(values)} ({np.mean(values - top):+.3f})"

    rows = []
    for name in (*results[0].distances, *RELATIONS):
        before = cell(_of(results, name)) if name in results[0].distances else ""
        rows.append((name, before, *(cell(_after(results, way.name, name)) for way in WAYS)))
    seconds = [np.mean([r.trained[way.name].work.seconds for r in results]) for way in WAYS]
    rows.append(("seconds of training", "", *(f"{value:.0f}" for value in seconds)))
    return markdown_table(("evaluator", "before", "P x K", "independent, equal images"), rows)


def _of(results: Sequence[OnSplit], distance: str) -> np.ndarray:
    return np.array([result.distances[distance] for result in results])


def _after(results: Sequence[OnSplit], variant: str, name: str) -> np.ndarray:
    return np.array([result.trained[variant].areas[name] for result in results])


def _mean(values: np.ndarray, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{values.mean():{sign}.3f} ± {values.std(ddof=1):.3f}"
