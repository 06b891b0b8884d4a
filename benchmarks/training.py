"""The training step: synthetic images, the real pipeline, groups of classes, and the original's
step, as ratios.

    python -m benchmarks.training --pack packs/demo --train.global_batch=64 --steps 20

The ways to train, on the GPU where there is one:

synthetic   one batch of independent pairs, whatever the recipe's sampling, that is already on the
            device: what the network alone can do
pipeline    the same step fed by the pack, as train_ddp.py does it
original    the original's step: float32, backbone and relational module each with
            its own DistributedDataParallel and find_unused_parameters, anomaly detection, images
            decoded and augmented by Pillow and torchvision in loader processes, one per core
groups      a step of --groups, P x K x R: P classes with K images each from the pack, and R
            negatives for each positive pair, as train_ddp.py does it with data.sampling
plain       the relational module alone, forward and backward, on random features and the pairs of
            such a step, each pair on its own
shared      the same with each image projected once
frozen      the step of such a group as train_ddp.py does it with train.backbone frozen: the plan,
            features gathered from random ones of the pack's images, relational module, optimizer

They are measured in turn, several times, and the fastest time of each counts.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, repeat
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import original
from benchmarks.harness import synchronize
from model.network import ReSeND
from model.objectives import build_objective
from pipelines.config import SamplingConfig
from pipelines.loader import PairBatch
from pipelines.pairs import PairData
from runtime.config import load_config
from runtime.distributed import Process, process_group
from training import task
from training.config import TrainConfig
from training.data import feature_loader, load_pairs, pair_loader
from training.optimization import build_optimizer
from training.pair_loss import PairLoss
from training.scaling import resolve
from training.step import Stepper

WAYS = ("synthetic", "pipeline", "original", "groups", "plain", "shared", "frozen")
# What a way's rate is compared with, where that is not the first three.
COMPARED = {"shared": ("plain",), "frozen": ("shared", "groups")}


def main() -> int:
    options = _options()
    config = recipe(options.config, options.pack, options.override)
    config = replace(config, data=replace(config.data, sampling=SamplingConfig()))
    with process_group(config.input.device) as process:
        data = load_pairs(config)
        grouped = with_groups(config, options.groups)
        groups = load_pairs(grouped)
        makers: dict[str, Callable[[], Callable[[], None]]] = {
            "synthetic": lambda: our_step(config, process, data, synthetic=True),
            "pipeline": lambda: our_step(config, process, data, synthetic=False),
            "original": lambda: _original(config, process, data),
            "groups": lambda: our_step(grouped, process, groups, synthetic=False),
            "plain": lambda: head_step(grouped, process, groups, shared=False),
            "shared": lambda: head_step(grouped, process, groups, shared=True),
            "frozen": lambda: frozen_step(grouped, process, groups),
        }
        ways = {name: makers[name]() for name in options.ways}
        seconds = dict.fromkeys(ways, float("inf"))
        for step in ways.values():
            _measure(step, min(3, options.steps), process)
        for _ in range(options.rounds):
            for name, step in ways.items():
                seconds[name] = min(seconds[name], _measure(step, options.steps, process))
    _report(config, process, seconds, grouped.train.global_batch)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", required=True, help="the pack to read")
    parser.add_argument("--config", default="configs/quickstart.yaml", help="a training recipe")
    parser.add_argument("--steps", type=int, default=20, help="steps of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way")
    parser.add_argument("--groups", default="32x4x3", help="P x K x R of a group")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="what is measured")
    options, override = parser.parse_known_args()
    options.override = override
    return options


def recipe(path: str, pack: str, override: Sequence[str] = ()) -> TrainConfig:
    """The recipe at ``path``, read from ``pack``, with random weights and further options."""
    config = load_config(
        TrainConfig,
        ["--config", path, f"--data.pack={pack}", *override],
        prog="benchmarks.training",
        description="",
    )
    config = replace(config, model=replace(config.model, backbone_weights=None, pretrained=False))
    return task.resolve_preprocessing(config)


def with_groups(config: TrainConfig, group: str) -> TrainConfig:
    """The recipe with one group of ``group``, such as 32x4x3, for each device and step."""
    classes, images, negatives = map(int, group.split("x"))
    sampling = SamplingConfig("classes", classes, images, negatives)
    grouped = replace(config, data=replace(config.data, sampling=sampling))
    loop = replace(config.train, recipe_ranks=1)
    return resolve(replace(grouped, scale="linear", train=loop), 1, None)


def our_step(
    config: TrainConfig, process: Process, data: PairData, *, synthetic: bool
) -> Callable[[], None]:
    """The step of train_ddp.py, fed by the pack or by one batch that stays on the device."""
    batches: Iterator[PairBatch] = pair_loader(data, config, process, 0)
    if synthetic:
        batches = same_batch(batches)
    stepper = build_stepper(config, process, data, batches)
    numbers = count(1)
    return lambda: cast(None, stepper.step(next(numbers)))


def frozen_step(config: TrainConfig, process: Process, data: PairData) -> Callable[[], None]:
    """The step of groups on random features of the pack's images, with a frozen backbone."""
    config = replace(config, train=replace(config.train, backbone="frozen"))
    network = cast(ReSeND, task.build(config, data.plan.num_classes)).to(process.device)
    network.backbone.requires_grad_(False)
    optimizer = build_optimizer(config.optimizer, task.parameter_groups(network, 1.0))
    shape = config.train.views, len(data.rows), network.relation.proj.in_features
    features = torch.randn(shape, device=process.device).half()
    batches = feature_loader(data, features, config, process, 0)
    stepper = Stepper(config, process, network, optimizer, batches)
    numbers = count(1)
    return lambda: cast(None, stepper.step(next(numbers)))


def same_batch(batches: Iterator[PairBatch]) -> Iterator[PairBatch]:
    """The first of ``batches`` repeated endlessly, in its own memory on the device."""
    first = next(batches)
    return repeat(replace(first, images=first.images.clone()))


def build_stepper(
    config: TrainConfig, process: Process, data: PairData, batches: Iterator[PairBatch]
) -> Stepper:
    """A network as train_ddp.py would train it, on its device."""
    network = cast(ReSeND, task.build(config, data.plan.num_classes)).to(process.device)
    network.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(config.optimizer, task.parameter_groups(network, 1.0))
    return Stepper(config, process, network, optimizer, batches)


def _original(config: TrainConfig, process: Process, data: PairData) -> Callable[[], None]:
    network = cast(ReSeND, task.build(config, data.plan.num_classes)).to(process.device)
    if not dist.is_initialized():
        dist.init_process_group(
            "nccl" if process.device.type == "cuda" else "gloo",
            init_method="tcp://127.0.0.1:29511",
            rank=0,
            world_size=1,
        )

    def read(number: int) -> tuple[bytes, bytes, bool]:
        drawn = data.draw(number, 1)
        anchor, partner = (image.tobytes() for image in data.pack.read(drawn.rows))
        return anchor, partner, bool(drawn.pairs.different[0])

    transform = original.augmenting_transform(config.augment, config.input.preprocessing.image_size)
    loader: DataLoader = DataLoader(
        original.PairImages(read, data.plan.pairs_per_epoch, transform),
        batch_size=config.train.global_batch // process.world_size,
        num_workers=max(1, len(os.sched_getaffinity(0)) // process.world_size),
        persistent_workers=True,
        pin_memory=process.device.type == "cuda",
    )
    optimizer = build_optimizer(config.optimizer, task.parameter_groups(network, 1.0))
    objective = build_objective(config.objective)
    return original.training_step(network, optimizer, objective, loader, process.device)


def head_step(
    config: TrainConfig, process: Process, data: PairData, *, shared: bool
) -> Callable[[], None]:
    """The relational module alone, forward and backward, on the pairs of a group; each image is
    projected once if ``shared``, else once for each of its pairs."""
    network = cast(ReSeND, task.build(config, data.plan.num_classes)).to(process.device)
    drawn = data.draw(0, 1).pairs
    left, right, different = (
        torch.from_numpy(x).to(process.device) for x in (drawn.left, drawn.right, drawn.different)
    )
    relation, objective = network.relation, build_objective(config.objective)
    width = relation.proj.in_features
    features = torch.randn(len(drawn.images), width, device=process.device, requires_grad=True)
    network.backbone = nn.Identity()
    pair_loss = PairLoss(network, objective, None, None)
    rounded = config.train.precision == "bfloat16"

    def step() -> None:
        network.zero_grad()
        with torch.autocast(process.device.type, torch.bfloat16, enabled=rounded):
            if shared:
                loss, _, _ = pair_loss(features, left, right, different)
            else:
                loss = objective(relation(features[left], features[right]).float(), different)
        loss.backward()

    return step


def _measure(step: Callable[[], None], steps: int, process: Process) -> float:
    """Seconds per step."""
    _wait(process)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(process)
    return (time.perf_counter() - started) / steps


def _wait(process: Process) -> None:
    synchronize(process.device)
    process.barrier()


def _report(
    config: TrainConfig, process: Process, seconds: dict[str, float], pairs_of_group: int
) -> None:
    if not process.is_first:
        return
    device = "CPU"
    if process.device.type == "cuda":
        device = torch.cuda.get_device_name(process.device)
    print(
        f"{process.world_size} x {device}, {len(os.sched_getaffinity(0))} cores "
        f"({platform.processor() or platform.machine()}), torch {torch.__version__}; "
        f"{config.model.backbone} at {config.input.preprocessing.image_size} px, "
        f"{config.train.global_batch} pairs a step, {pairs_of_group} of a group, "
        f"{config.train.precision}; load {os.getloadavg()[0]:.1f}"
    )
    rates = {}
    for name, time_ in seconds.items():
        of_groups = name in ("groups", *COMPARED, "plain")
        pairs = pairs_of_group if of_groups else config.train.global_batch
        rates[name] = pairs / time_
        ratios = [
            f"{rates[name] / rates[other]:6.2f} x {other}"
            for other in COMPARED.get(name, WAYS[:3])
            if other in rates and name not in ("plain", other)
        ]
        print(f"{name:10} {1000 * time_:9.1f} ms {rates[name]:9.0f} pairs/s", *ratios)


if __name__ == "__main__":
    sys.exit(main())
