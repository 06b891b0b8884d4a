"""The best references of each test by several criteria, from one matrix product.

Distances, cosines and weighted cosines all rank the references of a test by an affine function of
their inner products with it. So one product of tests and references, computed in tiles, serves
every search among the same features.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model.distances import as_compared, euclidean
from model.shared_head import linear

_SPARE = 16  # candidates beyond k, whose order by inner products may be wrong
_ROWS = 256  # tests of a tile; with fewer, its product is slow
_BYTES = 16  # per pair of a tile: its product, its value, and what topk needs
_ROUNDING = 32 * torch.finfo(torch.float32).eps  # of |x|^2 + |y|^2 in a distance from <x, y>
_TINY = 1e-12  # the least length that ``functional.normalize`` divides by


class Criterion(NamedTuple):
    """Ranks the M references y of a test x by scale * <x, y> + offset, the largest first.

    Attributes:
        scale: float32 (M,).
        offset: float32 (M,).
        wanted: how many references, at most M.
    """

    scale: Tensor
    offset: Tensor
    wanted: int


class Best(NamedTuple):
    """The k best references of T tests, best first.

    Attributes:
        values: float32 (T, k), of the criterion.
        positions: int64 (T, k), positions among the references.
    """

    values: Tensor
    positions: Tensor


class Nearest(NamedTuple):
    """The k nearest references of T tests, by ascending distance.

    Attributes:
        distances: float32 (T, k), Euclidean.
        positions: int64 (T, k), positions among the references.
    """

    distances: Tensor
    positions: Tensor


def by_distance(references: Tensor, count: int) -> Criterion:
    """Finds candidates for the ``count`` smallest Euclidean distances to ``references`` (M, D):
    |x - y|^2 = |x|^2 - 2 (<x, y> - |y|^2 / 2)."""
    lengths = references.norm(dim=1)
    wanted = min(count + _SPARE, len(references))
    return Criterion(torch.ones_like(lengths), -lengths.square() / 2, wanted)


def by_cosine(references: Tensor, count: int) -> Criterion:
    """The same after L2 normalization. A feature of zeros has no cosine and is a candidate."""
    lengths = references.norm(dim=1)
    wanted = min(count + _SPARE, len(references))
    offset = torch.zeros_like(lengths).masked_fill(lengths == 0, torch.inf)
    return Criterion(1 / lengths.clamp_min(_TINY), offset, wanted)


def best_references(
    tests: Tensor, references: Tensor, criteria: Mapping[str, Criterion], memory: int
) -> dict[str, Best]:
    """The best of ``references`` (M, D) for each of ``tests`` (T, D) by each of the criteria, in
    tiles of at most ``memory`` bytes, but at least one pair."""
    columns = max(1, memory // (_BYTES * _ROWS))
    rows = max(1, memory // (_BYTES * min(columns, len(references))))
    parts: dict[str, list[Best]] = {name: [] for name in criteria}
    for some in tests.split(min(rows, _ROWS)):
        best: dict[str, Best] = {}
        for start in range(0, len(references), columns):
            block = references[start : start + columns]
            part = slice(start, start + len(block))
            products = linear(some, block, some.new_zeros(len(block)))
            for name, (scale, offset, count) in criteria.items():
                values = torch.addcmul(offset[part], products, scale[part])
                top = torch.topk(values, min(count, len(block)), dim=1)
                found = Best(top.values, top.indices + start)
                best[name] = _merged(best[name], found, count) if start else found
        for name, found in best.items():
            parts[name].append(found)
    return {name: Best(*map(torch.cat, zip(*found, strict=True))) for name, found in parts.items()}


def _merged(first: Best, second: Best, count: int) -> Best:
    values = torch.cat((first.values, second.values), dim=1)
    positions = torch.cat((first.positions, second.positions), dim=1)
    top = torch.topk(values, min(count, values.shape[1]), dim=1)
    return Best(top.values, positions.gather(1, top.indices))


def nearest(
    tests: Tensor,
    references: Tensor,
    candidates: Tensor,
    count: int,
    *,
    normalized: bool,
    memory: int,
) -> Nearest:
    """The ``count`` nearest of ``references`` (M, D) to each of ``tests`` (T, D).

    Distances are computed from differences of features, since those from inner products have the
    rounding error of the squared lengths. Where that error is as large as the distance between the
    k-th and the last candidate, all references are compared.

    Args:
        tests: features.
        references: features.
        candidates: int64 (T, n), the positions that ``by_distance`` or ``by_cosine`` prefers.
        count: k.
        normalized: compare features of length 1, as ``by_cosine`` does.
        memory: bytes for intermediate values, exceeded only by those of a single test.
    """
    largest = 1.0 if normalized else float(references.norm(dim=1).max()) ** 2
    complete = candidates.shape[1] == len(references)
    rows = max(1, memory // (8 * candidates.shape[1] * tests.shape[1]))
    parts = []
    for some, positions in zip(tests.split(rows), candidates.split(rows), strict=True):
        x = as_compared(some, normalized)
        y = as_compared(references[positions.flatten()], normalized).unflatten(0, positions.shape)
        distances = euclidean(x[:, None], y).squeeze(1)
        top = torch.topk(distances, count, dim=1, largest=False)
        found = Nearest(top.values, positions.gather(1, top.indices))
        if not complete:
            error = _ROUNDING * (x.square().sum(dim=1) + largest)
            gap = distances[:, -1].square() - found.distances[:, -1].square()
            unsure = torch.nonzero(~(gap > 2 * error)).flatten()
            for row in unsure.split(_ROWS):
                exact = _compare_all(x[row], references, count, normalized, memory)
                found.distances[row], found.positions[row] = exact
        parts.append(found)
    return Nearest(*map(torch.cat, zip(*parts, strict=True)))


def _compare_all(
    tests: Tensor, references: Tensor, count: int, normalized: bool, memory: int
) -> Nearest:
    columns = max(1, memory // (_BYTES * (len(tests) + references.shape[1])))
    best = Best(tests[:, :0], tests.new_empty(len(tests), 0, dtype=torch.int64))
    for start in range(0, len(references), columns):
        block = as_compared(references[start : start + columns], normalized)
        top = torch.topk(-euclidean(tests, block), min(count, len(block)), dim=1)
        found = Best(top.values, top.indices + start)
        best = _merged(best, found, count)
    return Nearest(-best.values, best.positions)
