"""How fast a training step is, alone and fed by the input."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from benchmarks.gpu.node import Budget, Node, Row, Value
from benchmarks.gpu.packs import RESIZED
from benchmarks.harness import seconds_of
from benchmarks.training import Batches, build_stepper
from pipelines.config import InputConfig
from runtime.distributed import process_group
from training.config import DataConfig, LoopConfig, NetworkConfig, TrainConfig
from training.cost import memory_gib, peak_flops, training_cost
from training.data import TrainingSet
from training.step import Stepper

_FEWEST_STEPS = 3

Precision = Literal["float32", "bfloat16"]


def steps(node: Node, budget: Budget) -> Iterator[Row]:
    """The step in each precision, compiled or not, with synthetic and with real input."""
    modes: list[tuple[bool, Precision]] = [(False, "bfloat16"), (False, "float32")]
    if node.device == "gpu":
        modes += [(True, "bfloat16"), (True, "float32")]
    for (compiled, precision), seconds in budget.split(modes):
        yield from _measure(node, precision, compiled, seconds)
    if node.device == "cpu":
        yield Row("compiled", {"result": "n/a on CPU"})


def _measure(node: Node, precision: Precision, compiled: bool, seconds: float) -> Iterator[Row]:
    size = node.size
    config = TrainConfig(
        DataConfig(node.folder / RESIZED),
        out=Path(),
        model=NetworkConfig(**asdict(size.model)),
        train=LoopConfig(global_batch=size.pairs, precision=precision, compile=compiled),
        input=InputConfig(device=node.device, image_size=size.image_size),
    )
    with process_group(node.device) as process:
        data = TrainingSet.load(config)
        batches = Batches(data.loader(config, process, 0), synthetic=True)
        stepper = build_stepper(config, process, data, batches)
        flops = training_cost(stepper.network, 2 * size.pairs, size.image_size, moments=1).flops
        peak = peak_flops(process.device, precision)
        numbers = itertools.count(1)

        def step() -> None:
            stepper.step(next(numbers))

        first = seconds_of(step, process.device)
        for synthetic in (True, False):
            batches.synthetic = synthetic
            if node.device == "gpu":
                torch.cuda.reset_peak_memory_stats()
            each, waiting = _time(step, stepper, process.device, max(seconds - first, 0) / 3)
            values: dict[str, Value] = {
                "pairs/s": size.pairs / each,
                "ms per step": 1000 * each,
                "waiting share": waiting,
            }
            if peak:
                values["MFU"] = flops / each / peak
            values["peak GiB"] = memory_gib(process.device)
            if synthetic:
                values["first step s"] = first
            kind = f"{precision}, {'compiled' if compiled else 'not compiled'}"
            yield Row(f"{kind}, {'synthetic' if synthetic else 'real'} input", values)


def _time(
    step: Callable[[], object], stepper: Stepper, device: torch.device, seconds: float
) -> tuple[float, float]:
    """Seconds per step over about ``seconds``, and the share in which the device had no images."""
    step()
    num_steps = max(_FEWEST_STEPS, int(seconds / seconds_of(step, device)))
    stepper.waiting.take()
    taken = seconds_of(lambda: [step() for _ in range(num_steps)], device)
    return taken / num_steps, stepper.waiting.take() / taken
