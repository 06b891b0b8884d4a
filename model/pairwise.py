"""Logits of every test against every reference: exact, in tiles, each image projected once.

The tokens of a pair meet for the first time in the first block's attention. What comes before it,
the projection and the first block's queries, keys and values, belongs to one image and is
computed once for each. After the last block only the cls token is read, so there the other two
give keys and values and nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.relation import RelationalTransformer

# Values of the widest moment of a block, a pair's three tokens each: residual, norm, MLP hidden
# before and after its activation, in multiples of the embedding.
_WIDTH_AT_PEAK = 3 * (1 + 1 + 4 + 4)
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
    memory: int = 256 << 20,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tile]:
    """The logits of all pairs of ``tests`` (T, D) and ``references`` (M, D), tile by tile.

    Args:
        relation: in evaluation mode; it is used in its own type, whatever ``dtype`` is.
        tests: (T, D) features.
        references: (M, D) features.
        memory: bytes that a tile's intermediate values may take; a tile has at least one pair.
        dtype: float32, or bfloat16 for the blocks' matrix products.
    """
    pairs = pairs_per_tile(relation, memory, dtype)
    columns = min(len(references), pairs)
    rows = max(1, pairs // columns)
    for first in range(0, len(references), columns):
        right = _first_block(relation, references[first : first + columns], dtype)
        for start in range(0, len(tests), rows):
            left = _first_block(relation, tests[start : start + rows], dtype)
            yield Tile(
                slice(start, start + len(left.features)),
                slice(first, first + len(right.features)),
                _tile_logits(relation, left, right, dtype),
            )


def relational_logits(
    relation: RelationalTransformer,
    tests: Tensor,
    references: Tensor,
    *,
    memory: int = 256 << 20,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int], object] = lambda pairs: None,
) -> Tensor:
    """Logits (T, M) of all pairs; ``progress`` is told the pairs of each finished tile."""
    logits = tests.new_empty(len(tests), len(references), dtype=torch.float32)
    for tile in relational_tiles(relation, tests, references, memory=memory, dtype=dtype):
        logits[tile.tests, tile.references] = tile.logits
        progress(tile.logits.numel())
    return logits


def pairs_per_tile(relation: RelationalTransformer, memory: int, dtype: torch.dtype) -> int:
    """How many pairs a tile may hold within ``memory`` bytes."""
    embed_dim = relation.cls_token.shape[-1]
    size = torch.finfo(dtype).bits // 8
    return max(1, memory // (_WIDTH_AT_PEAK * embed_dim * size))


def _precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@dataclass(frozen=True)
class _FirstBlock:
    """What n images bring into the first block, each on its own.

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
def _first_block(
    relation: RelationalTransformer, features: Tensor, dtype: torch.dtype
) -> _FirstBlock:
    with _precision(features.device, dtype):
        token = linear(features, relation.proj.weight, relation.proj.bias)
        token = token.float()  # the residual stream is never rounded
        return _FirstBlock(features, token, *_project(relation.blocks[0], token))


def _project(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (..., heads, d), of tokens (..., E)."""
    qkv = linear(block.norm1(tokens), block.attn.qkv.weight, block.attn.qkv.bias)
    return qkv.unflatten(-1, (3, block.attn.num_heads, -1)).unbind(-3)


@torch.no_grad()
def _tile_logits(
    relation: RelationalTransformer, left: _FirstBlock, right: _FirstBlock, dtype: torch.dtype
) -> Tensor:
    """Logits, float32 (t, m), of t images against m; head and cosine are never rounded."""
    with _precision(left.features.device, dtype):
        cls = _last_cls(relation, left, right)
    cosine = functional.normalize(left.features, dim=1) @ (
        functional.normalize(right.features, dim=1).T
    )
    return relation.relate(cls.float(), cosine.flatten()).view(cosine.shape)


def _last_cls(relation: RelationalTransformer, left: _FirstBlock, right: _FirstBlock) -> Tensor:
    """The last block's cls tokens (t * m, E) of t images against m."""
    blocks: list[Any] = list(relation.blocks)
    cls = relation.cls_token[0]
    query, key, value = _project(blocks[0], cls)
    x = _pair_up(cls, left.token, right.token)
    q = _pair_up(query, left.query, right.query)
    k = _pair_up(key, left.key, right.key)
    v = _pair_up(value, left.value, right.value)
    if len(blocks) == 1:
        return _after_attention(blocks[0], x[:, :1], q[:, :1], k, v)[:, 0]
    x = _after_attention(blocks[0], x, q, k, v)
    for block in blocks[1:-1]:
        x = _after_attention(block, x, *_project(block, x))
    return _cls_only(blocks[-1], x)[:, 0]


def _pair_up(of_cls: Tensor, of_left: Tensor, of_right: Tensor) -> Tensor:
    """(t * m, 3, ...) from (1, ...), (t, ...) and (m, ...)."""
    shape = (len(of_left), len(of_right), *of_left.shape[1:])
    parts = (of_cls[None], of_left[:, None], of_right[None])
    return torch.stack([part.to(of_left.dtype).expand(shape) for part in parts], 2).flatten(0, 1)


def _cls_only(block: Any, x: Tensor) -> Tensor:
    """The block's cls token (P, 1, E) from its three tokens (P, 3, E)."""
    heads = block.attn.num_heads
    normed = block.norm1(x)
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    embed_dim = x.shape[-1]
    q = linear(normed[:, :1], weight[:embed_dim], bias[:embed_dim])
    kv = linear(normed, weight[embed_dim:], bias[embed_dim:])
    k, v = kv.unflatten(-1, (2, heads, -1)).unbind(2)
    return _after_attention(block, x[:, :1], q.unflatten(-1, (heads, -1)), k, v)


def _after_attention(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The block's output for tokens x (P, i, E) whose queries are q (P, i, heads, d), with keys
    and values (P, 3, heads, d)."""
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    )
    proj, first, second = block.attn.proj, block.mlp.fc1, block.mlp.fc2
    x = x + linear(mixed.transpose(1, 2).flatten(2), proj.weight, proj.bias)
    hidden = linear(block.norm2(x), first.weight, first.bias, gelu=True)
    return x + linear(hidden, second.weight, second.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then GELU where asked for.

    For float32 on a CPU oneDNN computes it, which uses AVX-512 wherever there is any; MKL, which
    PyTorch takes by itself, does so on Intel's processors alone and is half as fast on AMD's.
    """
    if x.device.type == "cpu" and _HAS_ONEDNN and not torch.is_autocast_enabled("cpu"):
        activation = "gelu" if gelu else "none"
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    y = functional.linear(x, weight, bias)
    return functional.gelu(y) if gelu else y
