"""Logits of every test against every reference: exact, in tiles, each image projected once.

The tokens of a pair first interact in the first block's attention. Everything before it, the
projection and the first block's queries, keys and values, depends on one image and is computed
once per image. After the last block only the cls token is read, so in that block the other two
tokens contribute only keys and values.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.relation import RelationalTransformer

# Values of a pair's three tokens that are alive at the widest moment of a block, the feed-forward
# part: the residual and its norm, float32 in any case, their rounded copies, and the hidden layer
# before and after its activation.
_WIDTH_AT_PEAK = 3 * 15
# CUDA's attention kernels put the batch on a grid dimension with this limit
# (github.com/pytorch/pytorch/issues/142228).
_MAX_PAIRS = 65_535
_CPU_MEMORY = 48 << 20  # larger tiles do not fit a CPU's caches
_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


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
        right = _first_block(relation, references[first : first + columns])
        for start in range(0, len(tests), rows):
            left = _first_block(relation, tests[start : start + rows])
            yield Tile(
                slice(start, start + len(left.features)),
                slice(first, first + len(right.features)),
                _tile_logits(relation, left, right),
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
    return min(_MAX_PAIRS, max(1, memory // (_WIDTH_AT_PEAK * embed_dim * size)))


def _rounded(relation: RelationalTransformer, dtype: torch.dtype) -> RelationalTransformer:
    """A copy with projection and blocks' matrices in ``dtype``; it shares norms and head."""
    if dtype == torch.float32:
        return relation
    # what deepcopy finds in its memo it takes as the copy: shared, or rounded below
    twins = {id(parameter): parameter for parameter in relation.parameters()}
    for module in (relation.proj, *relation.blocks.modules()):
        if isinstance(module, nn.Linear):
            for parameter in module.parameters():
                twins[id(parameter)] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    return copy.deepcopy(relation, twins)


@dataclass(frozen=True)
class _FirstBlock:
    """What the first block needs of n images, computed from each image on its own.

    Attributes:
        features: (n, D).
        token: (n, E).
        query, key, value: (n, heads, d).
    """

    features: Tensor
    token: Tensor
    query: Tensor
    key: Tensor
    value: Tensor


@torch.no_grad()
def _first_block(relation: RelationalTransformer, features: Tensor) -> _FirstBlock:
    # the residual stream stays float32, whatever the type of the matrices
    token = linear(features, relation.proj.weight, relation.proj.bias).float()
    return _FirstBlock(features, token, *_project(relation.blocks[0], token))


def _project(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (..., heads, d), of tokens (..., E)."""
    qkv = linear(block.norm1(tokens), block.attn.qkv.weight, block.attn.qkv.bias)
    return qkv.unflatten(-1, (3, block.attn.num_heads, -1)).unbind(-3)


@torch.no_grad()
def _tile_logits(relation: RelationalTransformer, left: _FirstBlock, right: _FirstBlock) -> Tensor:
    """Logits, float32 (t, m), of t images against m; head and cosine are never rounded."""
    cls = _last_cls(relation, left, right)
    cosine = functional.normalize(left.features, dim=1) @ (
        functional.normalize(right.features, dim=1).T
    )
    return relation.relate(cls, cosine.flatten()).view(cosine.shape)


def _last_cls(relation: RelationalTransformer, left: _FirstBlock, right: _FirstBlock) -> Tensor:
    """The last block's cls tokens (t * m, E) of t images against m."""
    blocks: list[Any] = list(relation.blocks)
    cls = relation.cls_token[0]
    only_cls = slice(0, 1 if len(blocks) == 1 else None)
    query, key, value = _project(blocks[0], cls)
    x = _attend(
        blocks[0],
        _pair_up(cls, left.token, right.token)[:, only_cls],
        _pair_up(query, left.query, right.query)[:, only_cls],
        _pair_up(key, left.key, right.key),
        _pair_up(value, left.value, right.value),
    )
    x = _feed_forward(blocks[0], x)
    for block in blocks[1:-1]:
        x = _attend(block, x, *_project(block, x))
        x = _feed_forward(block, x)
    if len(blocks) > 1:
        x = _attend(blocks[-1], x[:, :1], *_project_to_cls(blocks[-1], x))
        x = _feed_forward(blocks[-1], x)
    return x[:, 0]


def _pair_up(of_cls: Tensor, of_left: Tensor, of_right: Tensor) -> Tensor:
    """(t * m, 3, ...) from (1, ...), (t, ...) and (m, ...)."""
    shape = (len(of_left), len(of_right), *of_left.shape[1:])
    parts = (of_cls[None], of_left[:, None], of_right[None])
    return torch.stack([part.to(of_left.dtype).expand(shape) for part in parts], 2).flatten(0, 1)


def _project_to_cls(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cls token's queries (P, 1, heads, d), all tokens' keys and values (P, 3, heads, d)."""
    heads, embed_dim = block.attn.num_heads, x.shape[-1]
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    normed = block.norm1(x)
    q = linear(normed[:, :1], weight[:embed_dim], bias[:embed_dim]).unflatten(-1, (heads, -1))
    kv = linear(normed, weight[embed_dim:], bias[embed_dim:]).unflatten(-1, (2, heads, -1))
    return q, *kv.unbind(2)


def _attend(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The block's first half for tokens x (P, i, E) whose queries are q (P, i, heads, d), with
    keys and values (P, 3, heads, d)."""
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    )
    proj = block.attn.proj
    return x + linear(mixed.transpose(1, 2).flatten(2), proj.weight, proj.bias)


def _feed_forward(block: Any, x: Tensor) -> Tensor:
    """The block's second half for tokens x (P, i, E)."""
    first, second = block.mlp.fc1, block.mlp.fc2
    hidden = linear(block.norm2(x), first.weight, first.bias, gelu=True)
    return x + linear(hidden, second.weight, second.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then GELU where asked for.

    In float32 on a CPU it calls oneDNN, which uses AVX-512 on every processor that has it. MKL,
    PyTorch's default, does so only on Intel's processors and is half as fast on AMD's.
    """
    x = x.to(weight.dtype)
    if _HAS_ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        activation = "gelu" if gelu else "none"
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    y = functional.linear(x, weight, bias)
    return functional.gelu(y) if gelu else y
