"""The relational module: do two feature vectors come from different classes?"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from model.errors import ModelError
from model.whitening import Whitening

HIDDEN_HEAD_DIM = 256
INITIAL_SCALE = 8.0
INITIAL_OFFSET = 5.0


class RelationalTransformer(nn.Module):
    """A transformer over the three tokens ``[cls, a, b]`` (ReSeND, ECCV 2022, section 3).

    Both features pass through the same projection and there is no positional embedding, so the
    logit is symmetric in a and b. Parameter names and sizes are those of published checkpoints.

    Args:
        feature_dim: D, the width of the backbone's features.
        config: sizes and head. ``mlp`` is embed_dim → 256, ReLU, → output without bias; of two
            logits (same, different) the difference is used. ``similarity_start`` adds
            offset - scale * cos(a, b) to the logit, both learned, with the head's last layer zero
            at the start, so that training begins at plain cosine similarity. ``whitened`` takes the
            cosine after the map ``whitening``, the identity until it is replaced.

    Attributes:
        whitening: the map before the cosine, None unless the similarity start is ``whitened``.

    Raises:
        ModelError: the heads cannot share the width equally, or there is no such head.
    """

    def __init__(self, feature_dim: int, config: ModelConfig) -> None:
        super().__init__()
        embed_dim, num_heads = config.embed_dim, config.num_heads
        if embed_dim % num_heads:
            raise ModelError(
                f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}; change either"
            )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.proj = nn.Linear(feature_dim, embed_dim)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, qkv_bias=True) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = _create_head(config.head, embed_dim, config.num_logits)
        self._initialize()
        if config.similarity_start:
            last = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
            self.similarity_scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
            self.similarity_offset = nn.Parameter(torch.tensor(INITIAL_OFFSET))
        self.similarity_start = bool(config.similarity_start)
        self.whitening = Whitening(feature_dim) if config.similarity_start == "whitened" else None

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits (P,) of the pairs of features ``a`` and ``b`` (P, D); high means different."""
        pair = self.proj(torch.stack((a, b), dim=1))
        x = torch.cat((self.cls_token.expand(len(pair), -1, -1).to(pair.dtype), pair), dim=1)
        for block in self.blocks:
            x = block(x)
        cosine = functional.cosine_similarity(self.similarity_space(a), self.similarity_space(b))
        return self.relate(x[:, 0], cosine)

    def similarity_space(self, features: Tensor) -> Tensor:
        """The features (N, D) between which the cosine is taken: those given, or whitened."""
        return features if self.whitening is None else self.whitening(features)

    def relate(self, cls: Tensor, cosine: Tensor) -> Tensor:
        """The logits (P,) from the last block's cls tokens (P, E) and the pairs' cosines (P,)."""
        output = self.head(self.norm(cls))
        logit = output[:, 0] if output.shape[1] == 1 else output[:, 1] - output[:, 0]
        if self.similarity_start:
            logit = logit + self.similarity_offset - self.similarity_scale * cosine
        return logit

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _create_head(name: str, embed_dim: int, num_logits: int) -> nn.Module:
    if name == "linear":
        return nn.Linear(embed_dim, num_logits)
    if name == "mlp":
        return nn.Sequential(
            nn.Linear(embed_dim, HIDDEN_HEAD_DIM),
            nn.ReLU(),
            nn.Linear(HIDDEN_HEAD_DIM, num_logits, bias=False),
        )
    raise ModelError(f"head is {name!r}; choose linear or mlp")
