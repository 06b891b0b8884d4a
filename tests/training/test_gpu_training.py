"""What only a GPU can show of training: run with `pytest -m gpu`."""

import json
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import ObjectiveConfig
from pipelines.loader import PairBatch
from runtime.device import resolve_device
from runtime.distributed import process_group
from tests.common import ROOT
from training import task
from training.config import (
    DataConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainInputConfig,
)
from training.optimization import build_optimizer
from training.step import Stepper

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]

PAIRS, SIZE = 32, 64


def config(backbone="test_convnext", **train):
    unresolved = TrainConfig(
        DataConfig("."),
        out=Path(),
        model=NetworkConfig(backbone, embed_dim=48, depth=2, num_heads=2),
        objective=ObjectiveConfig("bce"),
        optimizer=OptimizerConfig("lars", lr=1.0),
        schedule=ScheduleConfig(warmup=0),
        train=LoopConfig(global_batch=PAIRS, **train),
        input=TrainInputConfig(image_size=SIZE),
    )
    return task.resolve_preprocessing(unresolved)


def batch_on(device):
    """Random pairs, the same on every device."""
    images = torch.randn(2 * PAIRS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    different = torch.arange(PAIRS) % 3 > 0
    return PairBatch(
        step=0,
        images=images.to(device, memory_format=torch.channels_last),
        different=different.to(device),
        labels=torch.zeros(2 * PAIRS, dtype=torch.int64, device=device),
        rows=np.arange(2 * PAIRS),
    )


def stepper_on(process, settings, batches=None):
    torch.manual_seed(0)
    network = task.build(settings, num_classes=2).to(process.device)
    network.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(settings.optimizer, task.parameter_groups(network, 1.0))
    return Stepper(
        settings, process, network, optimizer, batches or repeat(batch_on(process.device))
    )


def losses(device, count, **train):
    settings = config(**train)
    with process_group(device) as process:
        stepper = stepper_on(process, settings)
        return [float(stepper.step(number).loss) for number in range(count)]


def test_auto_is_the_gpu():
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize(
    ("train", "tolerance"),
    [
        ({"precision": "float32"}, 5e-3),  # TF32 in convolutions has 10 bits
        ({"precision": "bfloat16"}, 2e-2),
        ({"precision": "bfloat16", "compile": True}, 2e-2),
        ({"precision": "float32", "accumulate": 4, "clip": 1.0}, 5e-3),
    ],
    ids=["float32", "bfloat16", "compiled", "accumulated"],
)
def test_a_gpu_trains_as_a_cpu_does(train, tolerance):
    on_cpu = {name: value for name, value in train.items() if name in ("accumulate", "clip")}
    assert losses("gpu", 5, **train) == pytest.approx(losses("cpu", 5, **on_cpu), abs=tolerance)


def test_a_step_never_waits_for_the_gpu():
    with process_group("gpu") as process:
        stepper = stepper_on(process, config(clip=1.0))
        stepper.step(0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            stepper.step(1)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("accumulate", [1, 4])
def test_waiting_for_images_is_counted_and_nothing_else_is(accumulate):
    pause, steps = 0.05, 4

    def slow():
        while True:
            torch.cuda.synchronize()
            time.sleep(pause)
            yield batch

    def waited(batches):
        """The waiting that is measured, and the time that the steps took, in seconds."""
        stepper = stepper_on(process, config(accumulate=accumulate), batches)
        stepper.step(0)
        stepper.waiting.take()
        time.sleep(pause * accumulate * steps)  # a gap between steps, such as a checkpoint makes
        torch.cuda.synchronize()
        started = time.perf_counter()
        for number in range(1, 1 + steps):
            stepper.step(number)
        torch.cuda.synchronize()
        return stepper.waiting.take(), time.perf_counter() - started

    with process_group("gpu") as process:
        batch = batch_on(process.device)
        measured, taken = waited(slow())
        assert 0.95 * pause * accumulate * steps < measured < taken
        measured, taken = waited(repeat(batch))
        assert measured < 0.5 * pause * accumulate * steps


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs on this machine")
@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet", "test_efficientnet"])
def test_two_gpus_train_as_one(pack_path, tmp_path, backbone):
    """Synchronized BatchNorm sees the statistics of both."""
    logs = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        options = {
            "--data.pack": pack_path,
            "--data.num_negatives": 3,
            "--out": out,
            "--input.device": "gpu",
            "--input.image_size": 64,
            "--model.backbone": backbone,
            "--model.embed_dim": 48,
            "--model.depth": 1,
            "--model.num_heads": 2,
            "--objective.name": "bce",
            "--optimizer.name": "sgd",
            "--optimizer.lr": 0.01,
            "--schedule.warmup": 0,
            "--train.iterations": 4,
            "--train.global_batch": 16,
            "--log.every": 1,
            "--log.tensorboard": "false",
        }
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={ranks}", "train_ddp.py"]
        command += [f"{name}={value}" for name, value in options.items()]
        subprocess.run(command, cwd=ROOT, check=True)
        logs.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
    one, two = ([line["loss"] for line in log if "loss" in line] for log in logs)
    assert two == pytest.approx(one, rel=2e-3)
