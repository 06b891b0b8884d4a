"""A training run from its configuration to its last checkpoint."""

import torch

from pipelines.pairs import PairData
from pipelines.threads import cores_per_process
from runtime.config import to_yaml
from runtime.device import dali_device
from runtime.distributed import Process
from training import resume, task
from training.config import TrainConfig, resolve, scaling_line
from training.cost import Cost, training_cost
from training.data import load_pairs, pair_loader
from training.loop import Loop
from training.optimization import build_optimizer
from training.run_log import RunLog
from training.step import Stepper
from training.validation import Validation

_MOMENTS = {"lars": 1, "torchlars": 1, "sgd": 1, "adamw": 2}


def train(recipe: TrainConfig, process: Process) -> int:
    """Train from the run's newest checkpoint, or from the start, to ``train.iterations``.

    Returns:
        The exit status: 0, or ``training.loop.INTERRUPTED``.

    Raises:
        PackError, ConfigError, CheckpointError: a mistake of the user's, or a full disk.
        TrainingError: training diverged.
    """
    found = resume.find(recipe, process)
    saved_batch = None if found is None else found.config["train"]["global_batch"]
    config = resolve(recipe, process.world_size, saved_batch)
    config = task.resolve_preprocessing(config)
    data = load_pairs(config)
    torch.manual_seed(config.seed)
    network = task.build(config, data.plan.num_classes)
    step_cost = training_cost(
        network,
        2 * config.train.global_batch // process.world_size // config.train.accumulate,
        config.input.preprocessing.image_size,
        _MOMENTS[config.optimizer.name],
    )
    sizes = _sizes(config, process, data)
    if config.scale != recipe.scale:
        sizes.insert(0, scaling_line(recipe, config))
    if config.dry_run:
        if process.is_first:
            print(to_yaml(config))
            print("\n".join([*sizes, _memory(step_cost)]))
        return 0
    network.to(process.device)
    network.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(
        config.optimizer, task.parameter_groups(network, config.optimizer.backbone_factor)
    )
    start = 0
    if found is not None:
        resume.check_same_run(config, found, data.pack)
        resume.restore(config, found, network, optimizer)
        start = found.step
        sizes.append(f"continuing {config.out} after step {start}")
    validation = None
    if config.validation.protocol is not None:
        validation = Validation(config, data.pack, process)
    loader = pair_loader(data, config, process, start)
    with RunLog(
        config.out,
        config.log,
        active=process.is_first,
        first=start,
        total=config.train.iterations,
    ) as log:
        for line in sizes:
            log.say(line)
        stepper = Stepper(config, process, network, optimizer, loader)
        flops = step_cost.flops * config.train.accumulate
        return Loop(config, process, stepper, loader, data, log, validation, flops).run(start)


def _sizes(config: TrainConfig, process: Process, data: PairData) -> list[str]:
    loop, plan = config.train, data.plan
    pairs = loop.iterations * loop.global_batch
    parts = process.world_size * loop.accumulate
    return [
        f"{config.task}: {len(data.rows):,} images of {plan.num_classes:,} classes, "
        f"{plan.pairs_per_epoch:,} pairs an epoch",
        _input_line(config),
        f"{loop.iterations:,} steps of {loop.global_batch:,} pairs = {pairs:,} pairs, "
        f"{pairs / plan.pairs_per_epoch:.2f} epochs; {loop.global_batch // parts:,} pairs at a "
        f"time on each of {process.world_size} x {process.device.type}",
    ]


def _input_line(config: TrainConfig) -> str:
    p, device = config.input.preprocessing, dali_device(config.input.device)
    threads = config.input.num_threads or cores_per_process()
    return (
        f"input: {p.image_size} x {p.image_size} pixels, {p.interpolation}, evaluated with "
        f"crop_mode {p.crop_mode}; DALI on {device} with {threads} threads per process"
    )


def _memory(step_cost: Cost) -> str:
    state, activations = step_cost.state_bytes / 2**30, step_cost.activation_bytes / 2**30
    return (
        f"{step_cost.parameters:,} parameters, {step_cost.flops / 1e12:.2f} TFLOP for the pairs "
        f"taken at a time; memory of each device: {state:.2f} GiB of weights, gradients and "
        f"optimiser, about {activations:.2f} GiB of activations in float32, half in bfloat16"
    )
