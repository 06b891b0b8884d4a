"""How fast relations and a complete target are scored, next to the original's way."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.evaluation import matrix_rate, relation_ways, target_ways
from benchmarks.gpu.node import Budget, Node, Row, Value
from benchmarks.gpu.packs import ORIGINAL, drawn_protocol
from benchmarks.harness import seconds_per_call
from model.backbone import feature_dim
from model.network import build_network
from pipelines.pack import Pack
from runtime.device import resolve_device
from runtime.distributed import process_group
from runtime.precision import exact_float32

_LOOP_TESTS = 64  # the original's loop takes one test at a time, so few give its rate
_LOOP = "original's loop"
_ORDER = ("plain batched forward", "ours, float32", "ours, bfloat16", _LOOP)
_RUNS = 2


def relations(node: Node, budget: Budget) -> Iterator[Row]:
    """Relational pairs/s of each way, and its share of the matrix rate measured here."""
    device, size = resolve_device(node.device), node.size
    torch.manual_seed(0)
    network = build_network(size.model).eval().to(device)
    width = feature_dim(network.backbone, size.image_size)
    tests, prototypes = (
        torch.randn(count, width, device=device).abs() for count in (size.tests, size.prototypes)
    )
    rates = {dtype: matrix_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    yield Row(
        "matrix products", {f"TFLOP/s {str(t)[6:]}": rate / 1e12 for t, rate in rates.items()}
    )
    ways = relation_ways(network.relation, device)
    plain = 0.0
    for name, seconds in budget.split(_ORDER):
        way = ways[name]
        chosen = tests[:_LOOP_TESTS] if name == _LOOP else tests
        each = seconds_per_call(partial(way.score, chosen, prototypes), device, 0.6 * seconds)
        rate = len(chosen) * len(prototypes) / each
        plain = plain or rate
        yield Row(
            name,
            {
                "pairs/s": rate,
                "x plain": rate / plain,
                "matrix rate share": rate * way.flops / rates[way.dtype],
            },
        )


def target(node: Node, budget: Budget) -> Iterator[Row]:
    """A complete target from encoded images to metrics; the better of two runs of each way."""
    protocol, pack = drawn_protocol(), Pack(node.folder / ORIGINAL)
    # With random weights alone the logits hardly differ, and bfloat16 would be refused for them.
    torch.manual_seed(0)
    decoding = node.decoding()
    model = replace(node.size.model, similarity_start=True)
    network = build_network(model, decoding.preprocessing).eval()
    with process_group(node.device) as process, exact_float32():
        network.to(process.device)
        ways = target_ways(network, protocol, pack, decoding.config, process, node.num_cores)
        original = 0.0
        for name, _ in budget.split(list(ways)):
            seconds = []
            for _ in range(_RUNS):
                started = time.perf_counter()
                images = ways[name]()
                seconds.append(time.perf_counter() - started)
            original = original or min(seconds)
            values: dict[str, Value] = {
                "images/s": images / min(seconds),
                "seconds": min(seconds),
                "x original": original / min(seconds),
            }
            yield Row(name, values)
