"""What only a GPU can show of evaluation: run with `pytest -m gpu`."""

import pytest
import torch

from benchmarks.evaluation import plain_batched
from model.config import ModelConfig
from model.network import build_network
from model.pairwise import relational_logits
from runtime.precision import exact_float32

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]


@exact_float32()
@pytest.mark.parametrize(("embed_dim", "num_heads"), [(128, 4), (768, 12)])
def test_a_large_tile_gives_the_logits_of_the_plain_forward(embed_dim, num_heads):
    """At width 128 a tile of 4 GiB holds more than the 65,535 pairs that CUDA allows in a grid."""
    torch.manual_seed(0)
    config = ModelConfig("test_resnet", embed_dim=embed_dim, depth=2, num_heads=num_heads)
    relation = build_network(config).relation.eval().requires_grad_(False).to("cuda")
    width = relation.proj.in_features
    tests, references = (torch.randn(count, width, device="cuda").abs() for count in (2048, 100))
    logits = relational_logits(relation, tests, references, memory=4096 << 20)
    expected = plain_batched(relation.cpu(), tests[::256].cpu(), references.cpu())
    assert (logits[::256].cpu() - expected).abs().max() < 1e-4
