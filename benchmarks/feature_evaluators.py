"""The evaluators of features, all at once, next to the largest matrix product that they need.

    python -m benchmarks.feature_evaluators [--width 512] [--references 60000] [--tests 20000]

Synthetic features of 54 classes, without negative values as after a ReLU; by default as many as in
the largest published target, DomainNet Real. The product of tests and references is computed in
tiles by the fastest way there is, and the ways take turns, round by round. The memory is what the
process took beyond the features.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import markdown_table, median_ratio, peak_memory, seconds_of
from model.classifier import train_classifier
from model.config import BASELINES, WHITENED_COSINE, WITH_CLASSIFIER, EvaluatorOptions
from model.evaluators import References, evaluate
from model.pairwise import tile_memory
from model.shared_head import linear

_CLASSES = 54
_STEPS = 100  # of the classifier's training


def draw(count: int, width: int, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Features (count, width) around ``centers`` (K, width), and their classes."""
    classes = torch.arange(count) % len(centers)
    features = torch.randn(count, width).mul_(0.8)
    return features.add_(centers[classes]).relu_(), classes


@torch.no_grad()
def product(tests: Tensor, references: Tensor) -> None:
    """All inner products, in tiles of 12 MiB."""
    for some in tests.split(256):
        for block in references.split(12_288):
            linear(some, block, block.new_zeros(len(block)))


def compare(references: References, tests: Tensor, rounds: int) -> str:
    """A markdown table of sets of evaluators, all at once."""
    known = references
    with torch.no_grad():
        classifier = train_classifier(known.features, known.classes, known.num_classes, _STEPS)
    options = EvaluatorOptions(classifier=classifier)
    distances = [name for name in BASELINES if name != WHITENED_COSINE]
    sets: dict[str, Sequence[str]] = {
        "knn, knn-normalized": ["knn", "knn-normalized"],
        "all by distances": distances,
        "all, with a classifier": [*distances, *WITH_CLASSIFIER],
    }
    ways: dict[str, Callable[[], object]] = {"product": partial(product, tests, known.features)}
    for name, names in sets.items():
        ways[name] = partial(evaluate, names, None, known, tests, options)
    before, device = peak_memory(), tests.device
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(seconds_of(way, device))
            peaks.setdefault(name, peak_memory() - before)
    rows = [
        (
            name,
            f"{statistics.median(took):.1f}",
            f"{median_ratio(took, seconds['product']):.2f}",
            f"{peaks[name]:.0f}",
        )
        for name, took in seconds.items()
    ]
    columns = ("evaluators", "seconds", "x product", "MB, at most so far")
    return (
        f"{len(tests)} tests x {len(known.features)} references x {tests.shape[1]}; tiles of "
        f"{tile_memory(device) >> 20} MiB\n\n{markdown_table(columns, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--references", type=int, default=60_000)
    parser.add_argument("--tests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    centers = torch.rand(_CLASSES, options.width)
    features, classes = draw(options.references, options.width, centers)
    tests, _ = draw(options.tests, options.width, centers)
    print(compare(References(features, classes, _CLASSES), tests, options.rounds))


if __name__ == "__main__":
    main()
