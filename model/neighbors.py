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
# Of a squared distance from an inner product, as a share of |x|^2 + |y|^2: at most 12 eps were
# observed with 2,048 positive values.
_ROUNDING = 16 * torch.finfo(torch.float32).eps
_TOLERANCE = 2e-5  # of a squared distance
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
                top = _top(values, count)
                found = top._replace(positions=top.positions + start)
                best[name] = _merged(best[name], found, count) if start else found
        for name, found in best.items():
            parts[name].append(found)
    return {name: Best(*map(torch.cat, zip(*found, strict=True))) for name, found in parts.items()}


def _top(values: Tensor, count: int) -> Best:
    """The ``count`` largest of ``values`` (t, m), which are among those of the ``count`` groups of
    eight with the largest maxima."""
    groups = values.shape[1] // 8
    if groups < count:
        return Best(*torch.topk(values, min(count, values.shape[1]), dim=1))
    maxima = values[:, : 8 * groups]
    while maxima.shape[1] > groups:  # of each value and the one half a width to its right
        maxima = torch.maximum(*maxima.chunk(2, dim=1))
    chosen = maxima.topk(count, dim=1, sorted=False).indices
    members = torch.arange(8, device=values.device)[:, None] * groups + chosen[:, None]
    rest = torch.arange(8 * groups, values.shape[1], device=values.device)
    columns = torch.cat((members.flatten(1), rest.expand(len(values), -1)), dim=1)
    top = values.gather(1, columns).topk(count, dim=1)
    return Best(top.values, columns.gather(1, top.indices))


def _merged(first: Best, second: Best, count: int) -> Best:
    values = torch.cat((first.values, second.values), dim=1)
    positions = torch.cat((first.positions, second.positions), dim=1)
    top = torch.topk(values, min(count, values.shape[1]), dim=1)
    return Best(top.values, positions.gather(1, top.indices))


def nearest(
    tests: Tensor,
    references: Tensor,
    best: Best,
    count: int,
    *,
    normalized: bool,
    memory: int,
) -> Nearest:
    """The ``count`` nearest of ``references`` (M, D) to each of ``tests`` (T, D), 1e-5 exact.

    The distances follow from the inner products, whose rounding errors are about as large as those
    of the squared lengths. Where these matter, the candidates are compared by differences of
    features, and where that does not decide which are the nearest, all references are.

    Args:
        tests: features.
        references: features.
        best: by ``by_distance`` or, for normalized features, ``by_cosine``.
        count: k.
        normalized: compare features of length 1.
        memory: bytes for intermediate values, exceeded only by those of a single test.
    """
    lengths = tests.norm(dim=1)
    if normalized:
        known_length, squares = 1.0, 2 - 2 * best.values / lengths.clamp_min(_TINY)[:, None]
        lengths = torch.ones_like(lengths)
    else:
        known_length = float(references.norm(dim=1).max())
        squares = lengths.square()[:, None] - 2 * best.values
    error = _ROUNDING * (lengths.square() + known_length**2)
    found = Nearest(squares[:, :count].clamp_min(0).sqrt(), best.positions[:, :count])
    unsure = torch.nonzero(~(error < _TOLERANCE * squares[:, 0])).flatten()
    for rows in unsure.split(max(1, memory // (_BYTES * best.values.shape[1] * tests.shape[1]))):
        positions = best.positions[rows]
        x = as_compared(tests[rows], normalized)
        y = as_compared(references[positions.flatten()], normalized).unflatten(0, positions.shape)
        distances = euclidean(x[:, None], y).squeeze(1)
        top = torch.topk(distances, count, dim=1, largest=False)
        found.distances[rows], found.positions[rows] = top.values, positions.gather(1, top.indices)
        if positions.shape[1] < len(references):
            gap = distances[:, -1].square() - top.values[:, -1].square()
            for some in torch.nonzero(~(gap > 2 * error[rows])).flatten().split(_ROWS):
                exact = _compare_all(x[some], references, count, normalized, memory)
                found.distances[rows[some]], found.positions[rows[some]] = exact
    return found


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
