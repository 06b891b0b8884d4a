"""How fast relations and whole benchmark targets are scored, beside other ways of doing it.

    python -m benchmarks.evaluation [--prototypes 54] [--rounds 5] [--threads 2]
    python -m benchmarks.evaluation --config configs/benchmarks/pacs_dg.yaml --pack PACK \\
        --target Sketch

Networks have the published sizes (ResNet-18, 28,748,545 parameters in the relational module) and
random weights. The ways take turns, round by round; the tables show medians, and ratios within the
same round. The *original's loop* is the published evaluation written afresh: one test image at a
time, prototypes in batches of 256, attention maps returned, results to the host; for a whole
target its images come from Pillow and torchvision through a DataLoader with a worker a thread, the
tests one by one. With --pack, decoding is included and the feature cache is off.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.config import BATCH_SIZE
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.protocol import Protocol, Target
from evaluation.trained import TrainedNetwork
from model.backbone import for_inference
from model.config import EvaluatorOptions, ModelConfig, Precision
from model.network import ReSeND, build_network
from model.pairwise import linear, relational_logits
from model.prototypes import class_means
from model.relation import RelationalTransformer
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import process_group

WIDTH = 768
BLOCK = 12 * WIDTH * WIDTH  # multiplications of a block's matrices for one token
PLAIN_FLOPS = 2 * (4 * 3 * BLOCK + 2 * 512 * WIDTH)


def tiled_flops() -> int:
    """Per pair: no first-block queries, keys and values, of the last block little but cls."""
    saved = 3 * 3 * WIDTH**2 + 2 * (WIDTH**2 + WIDTH**2 + 8 * WIDTH**2) + 2 * 512 * WIDTH // 2
    return PLAIN_FLOPS - 2 * saved


def plain_batched(relation: RelationalTransformer, tests: Tensor, prototypes: Tensor) -> Tensor:
    """The module's own forward on batches of as many pairs as a tile of ours."""
    rows = max(1, 432 // len(prototypes))
    with torch.no_grad():
        return torch.cat(
            [
                relation(
                    chunk.repeat_interleave(len(prototypes), 0), prototypes.repeat(len(chunk), 1)
                ).view(len(chunk), -1)
                for chunk in tests.split(rows)
            ]
        )


def original_loop(relation: RelationalTransformer, tests: Tensor, prototypes: Tensor) -> Tensor:
    """One test at a time against prototypes in batches of 256."""
    rows = []
    with torch.no_grad():
        for test in tests:
            found = []
            for batch in prototypes.split(256):
                pair = relation.proj(torch.stack((test.expand_as(batch), batch), dim=1))
                x = torch.cat((relation.cls_token.expand(len(batch), -1, -1), pair), dim=1)
                maps = []
                for block in relation.blocks:
                    x, attention = _with_attention(block, x)
                    maps.append(attention)
                found.append(relation.head(relation.norm(x)[:, 0])[:, 0].cpu().numpy())
            rows.append(np.concatenate(found))
    return torch.from_numpy(np.stack(rows))


def _with_attention(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    heads = block.attn.num_heads
    q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    x = x + block.attn.proj((attention @ v).transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x)), attention


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Best measured FLOP/s of a block's largest product at a tile's size."""
    rows = 3 * 432 if device.type == "cpu" else 3 * 16384
    a = torch.randn(rows, WIDTH, device=device, dtype=dtype)
    weight = torch.randn(4 * WIDTH, WIDTH, device=device, dtype=dtype)
    bias = torch.zeros(4 * WIDTH, device=device, dtype=dtype)
    best = min(_seconds(lambda: linear(a, weight, bias), device) for _ in range(10))
    return 2 * rows * WIDTH * 4 * WIDTH / best


def relation_ways(device: torch.device) -> dict[str, tuple[Callable, int, torch.dtype]]:
    """Each way with its FLOPs a pair and its type."""
    memory = (48 if device.type == "cpu" else 4096) << 20

    def ours(dtype: torch.dtype) -> Callable:
        return lambda relation, tests, prototypes: relational_logits(
            relation, tests, prototypes, memory=memory, dtype=dtype
        )

    return {
        "original's loop": (original_loop, PLAIN_FLOPS, torch.float32),
        "plain batched forward": (plain_batched, PLAIN_FLOPS, torch.float32),
        "ours, float32": (ours(torch.float32), tiled_flops(), torch.float32),
        "ours, bfloat16": (ours(torch.bfloat16), tiled_flops(), torch.bfloat16),
    }


def compare_relations(num_prototypes: int, num_tests: int, rounds: int) -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    relation = build_network(ModelConfig()).relation.eval().to(device)
    tests, prototypes = (
        torch.randn(count, 512, device=device).abs() for count in (num_tests, num_prototypes)
    )
    ways = relation_ways(device)
    rates = {torch.float32: 0.0, torch.bfloat16: 0.0}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        rates = {dtype: max(rate, matrix_rate(device, dtype)) for dtype, rate in rates.items()}
        for name, (way, _, _) in ways.items():
            took = _seconds(partial(way, relation, tests, prototypes), device)
            if number:
                seconds[name].append(took)
    lines = [
        f"Relations: {num_tests} tests x {num_prototypes} prototypes; matrix products reach "
        + ", ".join(
            f"{rate / 1e9:.0f} GFLOP/s in {str(dtype)[6:]}" for dtype, rate in rates.items()
        ),
        "",
        "| way | pairs/s | MFLOP a pair | share of matrix rate | x plain | x original |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, (_, flops, dtype) in ways.items():
        pairs = num_tests * num_prototypes / statistics.median(seconds[name])
        ratios = " | ".join(
            f"{_ratio(seconds[base], seconds[name]):.2f}"
            for base in ("plain batched forward", "original's loop")
        )
        share = pairs * flops / rates[dtype]
        lines.append(f"| {name} | {pairs:.0f} | {flops / 1e6:.0f} | {share:.0%} | {ratios} |")
    return "\n".join(lines)


def compare_targets(
    protocol: Protocol, target: Target, pack: Pack, rounds: int, threads: int
) -> str:
    torch.manual_seed(0)
    ways: dict[str, Callable[[], int]] = {}
    network = build_network(ModelConfig()).eval()
    with process_group("auto") as process:
        network.to(process.device)
        ways["original's way"] = lambda: _original_target(
            network, protocol, target, pack, threads, process.device
        )
        for dtype in (torch.float32, torch.bfloat16):
            ways[f"ours, {str(dtype)[6:]}"] = partial(
                _our_target, network, protocol, target, pack, process, dtype
            )
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        images = 0
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                images = way()
                seconds[name].append(time.perf_counter() - started)
    lines = [
        f"Target {target.name} of {protocol.name}: {images} images, decoding included",
        "",
        "| way | images/s | seconds | x original |",
        "|---|--:|--:|--:|",
    ]
    for name, took in seconds.items():
        middle = statistics.median(took)
        ratio = _ratio(seconds["original's way"], took)
        lines.append(f"| {name} | {images / middle:.1f} | {middle:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def _our_target(
    network: ReSeND,
    protocol: Protocol,
    target: Target,
    pack: Pack,
    process: Any,
    dtype: torch.dtype,
) -> int:
    backbone = network.backbone.to(memory_format=torch.channels_last)
    precision: Precision = "float32" if dtype == torch.float32 else "bfloat16"
    extractor = FeatureExtractor(
        TrainedNetwork(network, for_inference(backbone), 224),
        pack,
        process,
        ExtractionConfig(InputConfig(), BATCH_SIZE[process.device.type], precision),
    )
    config = BenchmarkConfig(
        evaluators=("relation-softmax",),
        options=EvaluatorOptions(precision=precision),
    )
    result = run_benchmark(protocol, [target.name], extractor, config)
    return len(result.extraction.features.rows)


def _original_target(
    network: ReSeND,
    protocol: Protocol,
    target: Target,
    pack: Pack,
    threads: int,
    device: torch.device,
) -> int:
    rows = protocol.rows(pack, target)
    backbone = network.backbone.to(memory_format=torch.contiguous_format)

    def features(chosen: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        for images in _pillow_loader(pack, chosen, batch_size, threads):
            with torch.no_grad():
                yield backbone(images.to(device))

    references = torch.cat(list(features(rows.reference, 64)))
    classes = torch.from_numpy(rows.reference_class).to(device)
    prototypes = class_means(references, classes, len(protocol.known))
    for feature in features(rows.test, 1):
        original_loop(network.relation, feature, prototypes)
    return len(rows.reference) + len(rows.test)


class _Images(torch.utils.data.Dataset):
    def __init__(self, pack: Pack, rows: np.ndarray) -> None:
        from torchvision import transforms

        self._pack, self._rows = pack, rows
        self._transform = transforms.Compose(
            [
                transforms.Resize((224, 224)),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Tensor:
        import io

        from PIL import Image

        data = self._pack.read(self._rows[[number]])[0].tobytes()
        return self._transform(Image.open(io.BytesIO(data)).convert("RGB"))


def _pillow_loader(
    pack: Pack, rows: np.ndarray, batch_size: int, threads: int
) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(
        _Images(pack, rows), batch_size=batch_size, num_workers=threads
    )


def _seconds(action: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _ratio(base: list[float], own: list[float]) -> float:
    return statistics.median(b / o for b, o in zip(base, own, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prototypes", type=int, default=54)
    parser.add_argument("--tests", type=int, default=0, help="0: 16 on a CPU, 4096 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--config", type=Path, help="protocol of a whole target")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--target")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    print(f"{device or platform.machine()}, {options.threads} threads, torch {torch.__version__}\n")
    if options.pack:
        protocol = Protocol.load(options.config)
        target = protocol.target(options.target) if options.target else protocol.targets[0]
        pack = Pack(options.pack)
        print(compare_targets(protocol, target, pack, options.rounds, options.threads))
    else:
        tests = options.tests or (4096 if torch.cuda.is_available() else 16)
        print(compare_relations(options.prototypes, tests, options.rounds))


if __name__ == "__main__":
    main()
