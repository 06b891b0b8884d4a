import pytest
import torch

from model.config import ModelConfig
from model.pairwise import pairs_per_tile, relational_logits, relational_tiles, tile_memory
from model.relation import RelationalTransformer
from tests.memory import PeakMemory


def relation(**options) -> RelationalTransformer:
    torch.manual_seed(0)
    module = RelationalTransformer(16, ModelConfig(embed_dim=24, num_heads=3, **options)).eval()
    for values in (*module.parameters(), *module.buffers()):
        torch.nn.init.normal_(values, std=0.3)
    return module


def plain(module, tests, references) -> torch.Tensor:
    """Each pair through the module's own forward, one at a time."""
    with torch.no_grad():
        return torch.stack(
            [torch.cat([module(a[None], b[None]) for b in references]) for a in tests]
        )


TESTS, REFERENCES = torch.randn(12, 16, generator=torch.Generator().manual_seed(1)).split((5, 7))


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1},
        {"depth": 2},
        {"depth": 4},
        {"depth": 2, "head": "mlp"},
        {"depth": 2, "num_logits": 2},
        {"depth": 2, "similarity_start": True},
        {"depth": 2, "similarity_start": "whitened"},
    ],
)
def test_tiles_equal_the_plain_forward(options):
    module = relation(**options)
    expected = plain(module, TESTS, REFERENCES)
    found = relational_logits(module, TESTS, REFERENCES)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_published_sizes_equal_the_plain_forward():
    torch.manual_seed(0)
    module = RelationalTransformer(512, ModelConfig()).eval()
    tests, references = torch.randn(3, 512), torch.randn(4, 512)
    expected = plain(module, tests, references)
    found = relational_logits(module, tests, references)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pairs", [1, 3, 7, 20, 1000])
def test_any_budget_covers_each_pair_once(pairs):
    module = relation(depth=2)
    budget = pairs * _bytes_per_pair(module)
    seen = torch.zeros(5, 7)
    for tile in relational_tiles(module, TESTS, REFERENCES, memory=budget):
        assert tile.logits.numel() <= pairs
        seen[tile.tests, tile.references] += 1
    assert (seen == 1).all()
    whole = relational_logits(module, TESTS, REFERENCES)
    found = relational_logits(module, TESTS, REFERENCES, memory=budget)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tile_exceeds_the_batch_that_cudas_attention_kernels_take(dtype):
    assert pairs_per_tile(relation(), 1 << 40, dtype) == 65_535


def test_the_budget_of_a_gpu_is_a_quarter_of_what_is_free_and_of_a_cpu_48_mib(monkeypatch):
    free, reserved, allocated = 10 << 30, 60 << 30, 50 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    assert tile_memory(torch.device("cuda", 0)) == 5 << 30
    assert tile_memory(torch.device("cpu")) == 48 << 20


def test_progress_is_told_of_every_pair():
    done: list[int] = []
    module = relation(depth=2)
    memory = 8 * _bytes_per_pair(module)
    relational_logits(module, TESTS, REFERENCES, memory=memory, progress=done.append)
    assert sum(done) == 35
    assert len(done) > 1


@pytest.mark.parametrize("options", [{}, {"similarity_start": "whitened"}])
def test_bfloat16_is_near_float32(options):
    module = relation(depth=2, **options)
    exact = relational_logits(module, TESTS, REFERENCES)
    rough = relational_logits(module, TESTS, REFERENCES, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


def test_no_tests_give_no_logits():
    assert relational_logits(relation(), TESTS[:0], REFERENCES).shape == (0, 7)


def _bytes_per_pair(module) -> int:
    return (1 << 27) // pairs_per_tile(module, 1 << 27, torch.float32) + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_memory_stays_within_the_budget(depth, dtype):
    module = RelationalTransformer(16, ModelConfig(embed_dim=96, num_heads=3, depth=depth)).eval()
    tests, references = torch.randn(60, 16), torch.randn(50, 16)
    rounded = sum(p.numel() * 2 for p in module.parameters()) if dtype == torch.bfloat16 else 0
    for budget in (1 << 21, 1 << 22):
        peak = PeakMemory()
        with peak:
            for _ in relational_tiles(module, tests, references, memory=budget, dtype=dtype):
                pass
        assert budget / 4 < peak.bytes - rounded < budget
