"""How fast a training step is, alone and fed by the input."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.gpu.node import Budget, Node, Row, Value
from benchmarks.gpu.packs import ORIGINAL, RESIZED
from benchmarks.harness import seconds_of
from benchmarks.training import build_stepper, same_batch
from pipelines.loader import PairBatch
from runtime.device import resolve_device
from runtime.distributed import process_group
from training import task
from training.config import DataConfig, LoopConfig, NetworkConfig, TrainConfig, TrainInputConfig
from training.cost import memory_gib, peak_flops, training_cost
from training.data import load_pairs, pair_loader
from training.step import Stepper

_FEWEST_STEPS = 3
_SYNTHETIC = "synthetic"

Precision = Literal["float32", "bfloat16"]


class _Batches:
    """Batches of whatever ``source`` is at the time, so that one network is fed in several ways."""

    def __init__(self, source: Iterator[PairBatch]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def __next__(self) -> PairBatch:
        return next(self.source)


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
    config = configuration(node, precision, compiled)
    mode = f"{precision}, {'compiled' if compiled else 'not compiled'}"
    with process_group(node.device) as process:
        data = load_pairs(config)
        batches = _Batches(same_batch(pair_loader(data, config, process, 0)))
        stepper = build_stepper(config, process, data, batches)
        numbers = itertools.count(1)

        def step() -> None:
            stepper.step(next(numbers))

        first = seconds_of(step, process.device)
        yield Row(f"{mode}, first step", {"seconds": first})
        for name in (_SYNTHETIC, RESIZED, ORIGINAL):
            if name != _SYNTHETIC:
                config = replace(config, data=DataConfig(str(node.folder / name)))
                batches.source = pair_loader(load_pairs(config), config, process, 0)
            if node.device == "gpu":
                torch.cuda.reset_peak_memory_stats()
            each, waiting = time_steps(step, stepper, process.device, max(seconds - first, 0) / 4)
            values = _values(node, precision, stepper, each) | {"waiting share": waiting}
            yield Row(f"{mode}, {name} input", values)


def configuration(node: Node, precision: Precision, compiled: bool) -> TrainConfig:
    """A recipe of the measured size on the resized pack."""
    size = node.size
    return task.resolve_preprocessing(
        TrainConfig(
            DataConfig(str(node.folder / RESIZED)),
            out=Path(),
            model=NetworkConfig(**asdict(size.model)),
            train=LoopConfig(global_batch=size.pairs, precision=precision, compile=compiled),
            input=TrainInputConfig(device=node.device, image_size=size.image_size),
        )
    )


def _values(node: Node, precision: Precision, stepper: Stepper, seconds: float) -> dict[str, Value]:
    """What a step of so many seconds amounts to."""
    size, device = node.size, resolve_device(node.device)
    values: dict[str, Value] = {"pairs/s": size.pairs / seconds, "ms per step": 1000 * seconds}
    peak = peak_flops(device, precision)
    if peak:
        shape = (3, size.image_size, size.image_size)
        cost = training_cost(stepper.network, 2 * size.pairs, shape, moments=1)
        values["MFU"] = cost.flops / seconds / peak
    values["peak GiB"] = memory_gib(device)
    if node.device == "gpu":
        free, total = torch.cuda.mem_get_info()
        values["device GiB"] = (total - free) / 2**30
    return values


def time_steps(
    step: Callable[[], object], stepper: Stepper, device: torch.device, seconds: float
) -> tuple[float, float]:
    """Seconds per step over about ``seconds``, and the share in which the device had no images."""
    step()
    num_steps = max(_FEWEST_STEPS, int(seconds / seconds_of(step, device)))
    stepper.waiting.take()
    taken = seconds_of(lambda: [step() for _ in range(num_steps)], device)
    return taken / num_steps, stepper.waiting.take() / taken
