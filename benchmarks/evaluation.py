"""How fast relations and complete benchmark targets are scored, next to other ways.

    python -m benchmarks.evaluation [--prototypes 54] [--rounds 5] [--threads 2]
    python -m benchmarks.evaluation --config configs/benchmarks/pacs_dg.yaml --pack PACK \\
        --target Sketch

Networks have the published sizes (ResNet-18, 28,748,545 parameters in the relational module) and
random weights. The ways take turns, round by round; the tables show medians, and ratios within the
same round. The original's way is in `benchmarks/original.py`; for a complete target its images come
from Pillow and torchvision through a DataLoader with one worker per thread, the tests one by one.
With --pack, decoding is included and the feature cache is off.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import original
from benchmarks.harness import markdown_table, median_ratio, seconds_of
from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.config import BATCH_SIZE
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.protocol import Protocol
from evaluation.trained import TrainedNetwork
from model.backbone import for_inference
from model.config import EvaluatorOptions, ModelConfig, Precision
from model.network import ReSeND, build_network
from model.pairwise import pairs_per_tile, relational_logits, tile_memory
from model.relation import RelationalTransformer
from model.shared_head import linear
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process, process_group

Scorer = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class Way:
    """A way of scoring tests (T, D) against prototypes (K, D).

    Attributes:
        score: computes the logits (T, K).
        flops: per pair, counting the matrix products of the relational module.
        dtype: of those products.
    """

    score: Scorer
    flops: int
    dtype: torch.dtype


def plain_flops(relation: RelationalTransformer) -> int:
    """Per pair: two projections, and 12 E x E products for each of three tokens in each block."""
    embed_dim, feature_dim = relation.proj.weight.shape
    return 2 * (2 * feature_dim * embed_dim + len(relation.blocks) * 3 * 12 * embed_dim**2)


def tiled_flops(relation: RelationalTransformer) -> int:
    """Per pair: without what each image needs once (projections, and the first block's queries,
    keys and values), and of two tokens in the last block nothing but keys and values."""
    embed_dim, feature_dim = relation.proj.weight.shape
    once = 2 * feature_dim * embed_dim + 3 * 3 * embed_dim**2
    queries = 1 if len(relation.blocks) > 1 else 0  # those of a single block are in ``once``
    unread = 2 * (queries + 1 + 8) * embed_dim**2
    return plain_flops(relation) - 2 * (once + unread)


def relation_ways(relation: RelationalTransformer, device: torch.device) -> dict[str, Way]:
    """The ways that are compared, by name."""

    def ours(dtype: torch.dtype) -> Way:
        score = partial(relational_logits, relation, dtype=dtype)
        return Way(score, tiled_flops(relation), dtype)

    plain = plain_flops(relation)
    return {
        "original's loop": Way(partial(original.score, relation), plain, torch.float32),
        "plain batched forward": Way(partial(plain_batched, relation), plain, torch.float32),
        "ours, float32": ours(torch.float32),
        "ours, bfloat16": ours(torch.bfloat16),
    }


def plain_batched(relation: RelationalTransformer, tests: Tensor, prototypes: Tensor) -> Tensor:
    """The module's own forward on batches of as many pairs as a tile of ours."""
    pairs = pairs_per_tile(relation, tile_memory(tests.device), torch.float32)
    rows = max(1, pairs // len(prototypes))
    with torch.no_grad():
        return torch.cat(
            [
                relation(
                    chunk.repeat_interleave(len(prototypes), 0), prototypes.repeat(len(chunk), 1)
                ).view(len(chunk), -1)
                for chunk in tests.split(rows)
            ]
        )


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Best measured FLOP/s of a large matrix product: 8192 x 8192 x 8192 on a GPU, on a CPU a
    block's largest at a tile's size, which stays in its caches."""
    rows, inner, columns = (1296, 768, 3072) if device.type == "cpu" else (8192, 8192, 8192)
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(columns, inner, device=device, dtype=dtype)
    bias = torch.zeros(columns, device=device, dtype=dtype)
    best = min(seconds_of(lambda: linear(a, weight, bias), device) for _ in range(10))
    return 2 * rows * inner * columns / best


def compare_relations(num_prototypes: int, num_tests: int, rounds: int) -> str:
    """A markdown table of the relational module's ways."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    relation = build_network(ModelConfig()).relation.eval().to(device)
    tests, prototypes = (
        torch.randn(count, 512, device=device).abs() for count in (num_tests, num_prototypes)
    )
    ways = relation_ways(relation, device)
    rates = {torch.float32: 0.0, torch.bfloat16: 0.0}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        rates = {dtype: max(rate, matrix_rate(device, dtype)) for dtype, rate in rates.items()}
        for name, way in ways.items():
            took = seconds_of(partial(way.score, tests, prototypes), device)
            if number:
                seconds[name].append(took)
    reached = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {str(dtype)[6:]}" for dtype, rate in rates.items()
    )
    rows = []
    for name, way in ways.items():
        pairs = num_tests * num_prototypes / statistics.median(seconds[name])
        ratios = (
            f"{median_ratio(seconds[base], seconds[name]):.2f}"
            for base in ("plain batched forward", "original's loop")
        )
        share = pairs * way.flops / rates[way.dtype]
        rows.append((name, f"{pairs:.0f}", f"{way.flops / 1e6:.0f}", f"{share:.0%}", *ratios))
    columns = ("way", "pairs/s", "MFLOP/pair", "share of matrix rate", "x plain", "x original")
    return (
        f"Relations: {num_tests} tests x {num_prototypes} prototypes; matrix products reach "
        f"{reached}\n\n{markdown_table(columns, rows)}"
    )


def compare_target(protocol: Protocol, pack: Pack, rounds: int, threads: int) -> str:
    """A markdown table of the ways to evaluate the one target of ``protocol``."""
    torch.manual_seed(0)
    network = build_network(ModelConfig()).eval()
    config = InputConfig()
    with process_group("auto") as process:
        network.to(process.device)
        ways = target_ways(network, protocol, pack, config, process, threads)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        images = 0
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                images = way()
                seconds[name].append(time.perf_counter() - started)
    rows = []
    for name, took in seconds.items():
        middle = statistics.median(took)
        ratio = median_ratio(seconds["original's way"], took)
        rows.append((name, f"{images / middle:.1f}", f"{middle:.1f}", f"{ratio:.2f}"))
    return (
        f"Target {protocol.targets[0].name} of {protocol.name}: {images} images, decoding included"
        f"\n\n{markdown_table(('way', 'images/s', 'seconds', 'x original'), rows)}"
    )


def target_ways(
    network: ReSeND,
    protocol: Protocol,
    pack: Pack,
    config: InputConfig,
    process: Process,
    workers: int,
) -> dict[str, Callable[[], int]]:
    """Ways to evaluate the first target of ``protocol``, by name; each returns the images read."""

    def original_way() -> int:
        rows = protocol.rows(pack, protocol.targets[0])
        original.evaluate_target(network, pack, rows, network.preprocessing.image_size, workers)
        return len(rows.reference) + len(rows.test)

    def ours(precision: Precision) -> int:
        backbone = network.backbone.to(memory_format=torch.channels_last)
        extractor = FeatureExtractor(
            TrainedNetwork(network, for_inference(backbone)),
            pack,
            process,
            ExtractionConfig(config, BATCH_SIZE[process.device.type], precision),
        )
        benchmark = BenchmarkConfig(
            evaluators=("relation-softmax",), options=EvaluatorOptions(precision=precision)
        )
        name = protocol.targets[0].name
        result = run_benchmark(protocol, [name], extractor, benchmark)
        return len(result.extraction.features.rows)

    return {
        "original's way": original_way,
        "ours, float32": partial(ours, "float32"),
        "ours, bfloat16": partial(ours, "bfloat16"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prototypes", type=int, default=54)
    parser.add_argument("--tests", type=int, default=0, help="0: 16 on a CPU, 4096 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--config", type=Path, help="protocol of a complete target")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--target")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    print(f"{device or platform.machine()}, {options.threads} threads, torch {torch.__version__}\n")
    if options.pack:
        protocol = Protocol.load(options.config)
        if options.target:
            protocol = replace(protocol, targets=(protocol.target(options.target),))
        print(compare_target(protocol, Pack(options.pack), options.rounds, options.threads))
    else:
        tests = options.tests or (4096 if torch.cuda.is_available() else 16)
        print(compare_relations(options.prototypes, tests, options.rounds))


if __name__ == "__main__":
    main()
