"""Logits of every test against every reference: exact, in tiles, each image projected once."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.relation import RelationalTransformer
from model.shared_head import MAX_PAIRS, all_logits, first_block, pair_logits

# Values of a pair's three tokens that are alive at the widest moment of a block, the feed-forward
# part: the residual and its norm, float32 in any case, their rounded copies, and the hidden layer
# before and after its activation.
_WIDTH_AT_PEAK = 3 * 15
_CPU_MEMORY = 48 << 20  # larger tiles do not fit a CPU's caches


@dataclass(frozen=True)
class Tile:
    """Logits (t, m) of consecutive tests and references.

    Attributes:
        tests: positions of the t tests.
        references: positions of the m references.
        logits: float32 (t, m), high for different classes.
    """

    tests: slice
    references: slice
    logits: Tensor


@torch.no_grad()
def relational_tiles(
    relation: RelationalTransformer,
    tests: Tensor,
    references: Tensor,
    *,
    memory: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tile]:
    """The logits of all pairs of ``tests`` (T, D) and ``references`` (M, D), tile by tile.

    Args:
        relation: in evaluation mode, float32.
        tests: (T, D) features.
        references: (M, D) features.
        memory: bytes that a tile's intermediate values may take, by default ``tile_memory`` of the
            device; a tile has at least one pair. The bfloat16 copy of the matrices is not counted.
        dtype: float32, or bfloat16 for the matrix products before the head.
    """
    budget = tile_memory(tests.device) if memory is None else memory
    pairs = pairs_per_tile(relation, budget, dtype)
    relation = _rounded(relation, dtype)
    columns = min(len(references), pairs)
    rows = max(1, pairs // columns)
    for first in range(0, len(references), columns):
        right = first_block(relation, references[first : first + columns])
        for start in range(0, len(tests), rows):
            left = first_block(relation, tests[start : start + rows])
            yield Tile(
                slice(start, start + len(left.token)),
                slice(first, first + len(right.token)),
                all_logits(relation, left, right),
            )


def relational_logits(
    relation: RelationalTransformer,
    tests: Tensor,
    references: Tensor,
    *,
    memory: int | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int], object] = lambda pairs: None,
) -> Tensor:
    """Logits (T, M) of all pairs; ``progress`` is called with each tile's number of pairs."""
    logits = tests.new_empty(len(tests), len(references), dtype=torch.float32)
    for tile in relational_tiles(relation, tests, references, memory=memory, dtype=dtype):
        logits[tile.tests, tile.references] = tile.logits
        progress(tile.logits.numel())
    return logits


@dataclass(frozen=True)
class SelectedPairs:
    """Logits of P pairs.

    Attributes:
        tests: int64 (P,), positions of the tests.
        references: int64 (P,), positions of the references.
        logits: float32 (P,), high for different classes.
    """

    tests: Tensor
    references: Tensor
    logits: Tensor


@torch.no_grad()
def selected_pairs(
    relation: RelationalTransformer,
    tests: Tensor,
    references: Tensor,
    selected: Tensor,
    *,
    memory: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[SelectedPairs]:
    """The logits of the pairs of ``tests`` (T, D) and ``references`` (M, D) that are ``selected``,
    bool (T, M); otherwise as ``relational_tiles``."""
    budget = tile_memory(tests.device) if memory is None else memory
    at_once = pairs_per_tile(relation, budget, dtype)
    relation = _rounded(relation, dtype)
    for pairs in torch.nonzero(selected).split(at_once):
        of_tests, left = pairs[:, 0].unique(return_inverse=True)
        of_references, right = pairs[:, 1].unique(return_inverse=True)
        images = first_block(relation, torch.cat((tests[of_tests], references[of_references])))
        logits = pair_logits(relation, images, left, right + len(of_tests))
        yield SelectedPairs(pairs[:, 0], pairs[:, 1], logits)


def tile_memory(device: torch.device) -> int:
    """The bytes that a tile may take on ``device``: 48 MiB on a CPU; on a GPU a quarter of the free
    memory, including what torch has reserved but does not use."""
    if device.type != "cuda":
        return _CPU_MEMORY
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + unused) // 4


def pairs_per_tile(relation: RelationalTransformer, memory: int, dtype: torch.dtype) -> int:
    """How many pairs a tile may hold within ``memory`` bytes, 65,535 at most."""
    embed_dim = relation.cls_token.shape[-1]
    size = torch.finfo(dtype).bits // 8
    return min(MAX_PAIRS, max(1, memory // (_WIDTH_AT_PEAK * embed_dim * size)))


def _rounded(relation: RelationalTransformer, dtype: torch.dtype) -> RelationalTransformer:
    """A copy with projection and blocks' matrices in ``dtype``; it shares norms and head."""
    if dtype == torch.float32:
        return relation
    # what deepcopy finds in its memo it takes as the copy: shared, or rounded below
    twins = {id(tensor): tensor for tensor in (*relation.parameters(), *relation.buffers())}
    for module in (relation.proj, *relation.blocks.modules()):
        if isinstance(module, nn.Linear):
            for parameter in module.parameters():
                twins[id(parameter)] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    return copy.deepcopy(relation, twins)
