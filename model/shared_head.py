"""The relational module on pairs in which each image occurs many times.

The tokens of a pair first interact in the first block's attention. Everything before it, the
projection and the first block's queries, keys and values, depends on one image and is computed
once per image. After the last block only the cls token is read, so in that block the other two
tokens contribute only keys and values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.relation import RelationalTransformer

# CUDA's attention kernels put the batch on a grid dimension with this limit
# (github.com/pytorch/pytorch/issues/142228).
MAX_PAIRS = 65_535
_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class FirstBlock(NamedTuple):
    """What the first block needs of n images, computed from each image on its own.

    Attributes:
        direction: (n, D), of length 1; the cosine of a pair is the product of two of them.
        token: (n, E).
        query, key, value: (n, heads, d).
    """

    direction: Tensor
    token: Tensor
    query: Tensor
    key: Tensor
    value: Tensor


def first_block(relation: RelationalTransformer, features: Tensor) -> FirstBlock:
    """The part of the relational module that depends on one image, for ``features`` (n, D)."""
    # the residual stream stays float32, whatever the type of the matrices
    token = linear(features, relation.proj.weight, relation.proj.bias).float()
    direction = functional.normalize(relation.similarity_space(features), dim=1)
    return FirstBlock(direction, token, *_project(relation.blocks[0], token))


def pair_logits(
    relation: RelationalTransformer, images: FirstBlock, left: Tensor, right: Tensor
) -> Tensor:
    """Logits, float32 (P,), of the pairs of images at ``left`` and ``right``, int64 (P,)."""
    first, second = (FirstBlock(*(part[at] for part in images)) for at in (left, right))
    cls = last_cls(relation, first, second, _pair_up)
    cosine = (first.direction.float() * second.direction.float()).sum(1)
    return relation.relate(cls, cosine)


def all_logits(relation: RelationalTransformer, left: FirstBlock, right: FirstBlock) -> Tensor:
    """Logits, float32 (t, m), of t images against m; head and cosine are never rounded."""
    cls = last_cls(relation, left, right, _all_pairs)
    cosine = left.direction @ right.direction.T
    return relation.relate(cls, cosine.flatten()).view(cosine.shape)


def with_means(features: Tensor, per_class: int) -> Tensor:
    """Features ((K - 1) * n, D): those given (n, D), K ``per_class`` of each class after one
    another, then the means of s = 2 .. K - 1 of them.

    ``place + (s - 1) * n`` is the mean of s images of a class from ``place`` on, where the first of
    the class follows its last.
    """
    of_class = features.unflatten(0, (-1, per_class))  # (classes, K, D)
    rolled = torch.stack([of_class.roll(-by, 1) for by in range(per_class - 1)])
    number = torch.arange(1, per_class, device=features.device)
    return (rolled.cumsum(0) / number.view(-1, 1, 1, 1)).to(features.dtype).flatten(0, 2)


def last_cls(
    relation: RelationalTransformer,
    left: FirstBlock,
    right: FirstBlock,
    pair_up: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """The last block's cls tokens (P, E) of P pairs.

    Args:
        relation: the relational module.
        left, right: the images of which they are formed.
        pair_up: makes (P, 3, ...) of the part that belongs to cls (1, ...) and those of ``left``
            and ``right``.
    """
    blocks: list[Any] = list(relation.blocks)
    cls = relation.cls_token[0]
    only_cls = slice(0, 1 if len(blocks) == 1 else None)
    query, key, value = _project(blocks[0], cls)
    x = _attend(
        blocks[0],
        pair_up(cls, left.token, right.token)[:, only_cls],
        pair_up(query, left.query, right.query)[:, only_cls],
        pair_up(key, left.key, right.key),
        pair_up(value, left.value, right.value),
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
    """(P, 3, ...) from (1, ...), (P, ...) and (P, ...)."""
    return torch.stack((of_cls.to(of_left.dtype).expand_as(of_left), of_left, of_right), 1)


def _all_pairs(of_cls: Tensor, of_left: Tensor, of_right: Tensor) -> Tensor:
    """(t * m, 3, ...) from (1, ...), (t, ...) and (m, ...)."""
    # a length by len() would be a constant of a traced graph
    shape = (of_left.shape[0], of_right.shape[0], *of_left.shape[1:])
    parts = (of_cls[None], of_left[:, None], of_right[None])
    return torch.stack([part.to(of_left.dtype).expand(shape) for part in parts], 2).flatten(0, 1)


def _project(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (..., heads, d), of tokens (..., E)."""
    qkv = linear(block.norm1(tokens), block.attn.qkv.weight, block.attn.qkv.bias)
    return qkv.unflatten(-1, (3, block.attn.num_heads, -1)).unbind(-3)


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
    torch.compile chooses for itself.
    """
    device = x.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    if not autocast:
        x = x.to(weight.dtype)
    eager = not (autocast or torch.compiler.is_compiling())
    if _HAS_ONEDNN and device == "cpu" and eager and x.dtype == torch.float32:
        if not torch.is_grad_enabled():
            return _onednn(x, weight, bias, "gelu" if gelu else "none")
        y = _OneDnnLinear.apply(x, weight, bias)
    else:
        y = functional.linear(x, weight, bias)
    return functional.gelu(y) if gelu else y


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")


class _OneDnnLinear(torch.autograd.Function):
    """``functional.linear`` whose three matrix products are oneDNN's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_y = gradients[0].flatten(0, -2)
        of_x = _onednn(gradients[0], weight.T.contiguous(), None)
        of_weight = _onednn(of_y.T.contiguous(), x.flatten(0, -2).T.contiguous(), None)
        return of_x, of_weight, of_y.sum(0)
