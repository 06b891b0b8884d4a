"""The training step: synthetic images, the real pipeline, and the original's step, as ratios.

    python -m benchmarks.training --pack packs/demo [--config configs/quickstart.yaml] [--steps 20]

Three ways to do the same steps, on the GPU where there is one:

synthetic   one batch that is already on the device: what the network alone can do
pipeline    the same step fed by the pack, as train_ddp.py does it
original    the original's step written afresh: float32, backbone and relational module each with
            its own DistributedDataParallel and find_unused_parameters, anomaly detection, images
            decoded and augmented by Pillow and torchvision in loader processes, one per core

The three are measured in turn, several times, and the fastest time of each counts.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice, repeat
from typing import Any, cast

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from model.network import ReSeND
from model.objectives import build_objective
from pipelines.graph import MEAN, STD
from pipelines.loader import PairBatch
from runtime.config import load_config
from runtime.distributed import Process, process_group
from training import task
from training.config import TrainConfig
from training.data import TrainingSet
from training.optimization import build_optimizer
from training.step import Stepper


def main() -> int:
    options = _options()
    config = load_config(
        TrainConfig,
        ["--config", options.config, f"--data.pack={options.pack}", *options.override],
        prog="benchmarks.training",
        description="",
    )
    config = replace(config, model=replace(config.model, backbone_weights=None, pretrained=False))
    with process_group(config.input.device) as process:
        data = TrainingSet.load(config)
        ways = {
            "synthetic": _ours(config, process, data, synthetic=True),
            "pipeline": _ours(config, process, data, synthetic=False),
            "original": _original(config, process, data),
        }
        seconds = dict.fromkeys(ways, float("inf"))
        for step in ways.values():
            _measure(step, 3, process)
        for _ in range(options.rounds):
            for name, step in ways.items():
                seconds[name] = min(seconds[name], _measure(step, options.steps, process))
    _report(config, process, options, seconds)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", required=True, help="the pack to read")
    parser.add_argument("--config", default="configs/quickstart.yaml", help="a training recipe")
    parser.add_argument("--steps", type=int, default=20, help="steps of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    options, override = parser.parse_known_args()
    options.override = override
    return options


def _ours(
    config: TrainConfig, process: Process, data: TrainingSet, *, synthetic: bool
) -> Callable[[], None]:
    network = cast(ReSeND, task.build(config, data.plan.num_classes)).to(process.device)
    network.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config.optimizer, task.parameter_groups(network, 1.0))
    batches: Iterator[PairBatch] = data.loader(config, process, 0)
    if synthetic:
        first = next(batches)
        batches = repeat(replace(first, images=first.images.clone()))
    stepper = Stepper(config, process, network, optimizer, batches)
    numbers = iter(range(1, sys.maxsize))
    return lambda: cast(None, stepper.step(next(numbers)))


class _Pairs(Dataset):
    """The plan's pairs, decoded and augmented as the original does."""

    def __init__(self, config: TrainConfig, data: TrainingSet) -> None:
        augment = config.augment
        self._data = data
        jitter = transforms.ColorJitter(
            augment.brightness, augment.contrast, augment.saturation, augment.hue
        )
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(config.input.image_size, scale=augment.scale),
                transforms.RandomHorizontalFlip(augment.flip),
                transforms.RandomApply([jitter], augment.jitter),
                transforms.RandomGrayscale(augment.grayscale),
                transforms.ToTensor(),
                transforms.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
            ]
        )

    def __len__(self) -> int:
        return self._data.plan.pairs_per_epoch

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, float]:
        pairs = self._data.plan.pairs(number, 1)
        rows = self._data.rows[[pairs.anchor[0], pairs.partner[0]]]
        anchor, partner = (
            self._transform(Image.open(BytesIO(encoded.tobytes())).convert("RGB"))
            for encoded in self._data.pack.read(rows)
        )
        return anchor, partner, float(pairs.different[0])


def _original(config: TrainConfig, process: Process, data: TrainingSet) -> Callable[[], None]:
    network = cast(ReSeND, task.build(config, data.plan.num_classes)).to(process.device)
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if process.device.type == "cuda" else "gloo",
            init_method="tcp://127.0.0.1:29511",
            rank=0,
            world_size=1,
        )
    backbone = DistributedDataParallel(network.backbone, find_unused_parameters=True)
    relation = DistributedDataParallel(network.relation, find_unused_parameters=True)
    optimizer = build_optimizer(config.optimizer, task.parameter_groups(network, 1.0))
    objective = build_objective(config.objective)
    batches = _endless(
        DataLoader(
            _Pairs(config, data),
            batch_size=config.train.global_batch // process.world_size,
            num_workers=max(1, len(os.sched_getaffinity(0)) // process.world_size),
            persistent_workers=True,
            pin_memory=process.device.type == "cuda",
        )
    )

    def step() -> None:
        anchors, partners, different = next(batches)
        optimizer.zero_grad()
        with torch.autograd.set_detect_anomaly(True):
            images = torch.cat([anchors, partners]).to(process.device)
            logits = relation(*backbone(images).chunk(2))
            loss = objective(logits, different.to(process.device) > 0)
            loss.backward()
        nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        optimizer.step()
        loss.item()

    return step


def _endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader


def _measure(step: Callable[[], None], steps: int, process: Process) -> float:
    """Seconds a step."""
    _wait(process)
    started = time.perf_counter()
    for _ in islice(repeat(None), steps):
        step()
    _wait(process)
    return (time.perf_counter() - started) / steps


def _wait(process: Process) -> None:
    if process.device.type == "cuda":
        torch.cuda.synchronize(process.device)
    process.barrier()


def _report(
    config: TrainConfig,
    process: Process,
    options: argparse.Namespace,
    seconds: dict[str, float],
) -> None:
    if not process.is_first:
        return
    device = "CPU"
    if process.device.type == "cuda":
        device = torch.cuda.get_device_name(process.device)
    print(
        f"{process.world_size} x {device}, {len(os.sched_getaffinity(0))} cores "
        f"({platform.processor() or platform.machine()}), torch {torch.__version__}; "
        f"{config.model.backbone} at {config.input.image_size} px, "
        f"{config.train.global_batch} pairs a step, {config.train.precision}"
    )
    for name, time_ in seconds.items():
        print(
            f"{name:10} {1000 * time_:9.1f} ms a step {config.train.global_batch / time_:9.0f} "
            f"pairs/s {seconds['original'] / time_:6.2f} x original "
            f"{seconds['synthetic'] / time_:5.0%} of synthetic"
        )


if __name__ == "__main__":
    sys.exit(main())
