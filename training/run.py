"""A training run from its configuration to its last checkpoint."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from model.network import Classifier, ReSeND
from pipelines.class_plan import ClassPlan
from pipelines.loader import PairLoader
from pipelines.pairs import PairData
from pipelines.threads import cores_per_process
from runtime.checkpoint import Checkpoint
from runtime.config import plain, to_yaml
from runtime.device import dali_device
from runtime.distributed import Process
from runtime.run_lock import run_lock
from training import resume, task
from training.averaging import AveragedNetwork
from training.config import LoopConfig, NetworkConfig, TrainConfig
from training.cost import Cost, SharedPairs, peak_flops, training_cost
from training.data import feature_loader, load_pairs, pair_loader, with_local_packs
from training.frozen import FeatureLoader, training_features
from training.loop import Loop, Run
from training.optimization import build_optimizer, num_moments
from training.profiling import check_profiled
from training.run_log import RunLog
from training.scaling import resolve, scaling_line
from training.step import Stepper
from training.validation import Validation, check_best
from training.wandb_run import check_installed
from training.whitening import whiten


@dataclass(frozen=True)
class _Prepared:
    """The parts of a run before its first step.

    Attributes:
        found: the checkpoint that it continues from, if any.
        config: resolved.
        data: the training pairs.
        network: on the CPU, with its initial weights; those of ``found`` are not loaded yet.
        cost: of a step with the pairs that a device takes at a time; None where nothing reports it.
        validation: of the network after each checkpoint, if any.
    """

    found: Checkpoint | None
    config: TrainConfig
    data: PairData
    network: ReSeND | Classifier
    cost: Cost | None
    validation: Validation | None


def train(recipe: TrainConfig, process: Process) -> int:
    """Train from the run's newest checkpoint, or from the start, to ``train.iterations``.

    Returns:
        The exit status: 0, or ``training.loop.INTERRUPTED``.

    Raises:
        UserError: a mistake in the command, its data or a checkpoint, or a full disk.
        TrainingError: training diverged.
    """
    recipe = with_local_packs(recipe, process)
    if recipe.dry_run:
        prepared = _prepare(recipe, process)
        if process.is_first:
            print(to_yaml(prepared.config))
            print("\n".join([*_summary(recipe, prepared, process), _memory(prepared)]))
        return 0
    with run_lock(recipe.out, process):
        prepared = _prepare(recipe, process)
        return _train(prepared, process, _summary(recipe, prepared, process))


def _prepare(recipe: TrainConfig, process: Process) -> _Prepared:
    found = resume.find(recipe, process)
    saved_batch = None if found is None else resume.saved_batch(found)
    config = resolve(recipe, process.world_size, saved_batch)
    config = task.resolve_preprocessing(config)
    check_installed(config.log.wandb)
    check_profiled(config, 0 if found is None else found.step or 0)
    data = load_pairs(config)
    if found is not None:
        resume.check_same_run(config, found, data.pack)
    torch.manual_seed(config.seed)
    start = replace(config, model=_starting_model(config, found))
    network = task.build(start, data.plan.num_classes)
    reported = config.dry_run or _peak_flops(config, process) is not None
    cost = _cost(config, network, data, process) if reported else None
    task.save_memory(network, config)  # afterwards: recomputing is not part of the model's FLOPs
    validation = None
    if config.validation.protocol is not None:
        validation = Validation(config, network, data.pack, process)
    check_best(config.checkpoint.best, task.create_task(config).accuracies, validation)
    return _Prepared(found, config, data, network, cost, validation)


def _cost(
    config: TrainConfig, network: ReSeND | Classifier, data: PairData, process: Process
) -> Cost:
    """Of what a device processes at a time."""
    loop, plan = config.train, data.plan
    pairs = loop.global_batch // process.world_size // loop.accumulate
    size = config.input.preprocessing.image_size
    trained: nn.Module = network
    example: tuple[int, ...] = (3, size, size)
    if loop.frozen and isinstance(network, ReSeND):
        trained, example = network.on_features(), (network.relation.proj.in_features,)
    shared = None
    if isinstance(plan, ClassPlan) and isinstance(network, ReSeND):
        shared = SharedPairs(pairs, min(pairs, loop.pairs_at_once or pairs))
    return training_cost(
        trained,
        pairs // plan.pairs_per_position * plan.images_per_position,
        example,
        num_moments(config.optimizer) + bool(loop.ema),
        shared,
    )


def _starting_model(config: TrainConfig, found: Checkpoint | None) -> NetworkConfig:
    """The network, without the initial weights that a checkpoint or a dry run makes needless."""
    model = config.model
    if found is not None:
        return replace(model, pretrained=False, backbone_weights=None)
    return replace(model, pretrained=False) if config.dry_run else model


def _train(prepared: _Prepared, process: Process, summary: list[str]) -> int:
    found, config, network = prepared.found, prepared.config, prepared.network
    network.to(process.device)
    network.to(memory_format=torch.channels_last)
    if config.train.frozen:
        network.backbone.requires_grad_(False)
    optimizer = build_optimizer(
        config.optimizer, task.parameter_groups(network, config.optimizer.backbone_factor)
    )
    start = 0
    if found is not None:
        resume.restore(found, network, optimizer)
        start = found.step or 0
    run = Run(config, process, prepared.data, prepared.validation, _peak_seconds(prepared, process))
    with RunLog(
        config.out,
        config.log,
        active=process.is_first,
        first=start,
        total=config.train.iterations,
        settings=plain(config),
    ) as log:
        for line in summary:
            log.say(line)
        if found is None and isinstance(network, ReSeND) and network.relation.whitening:
            whiten(network, config, prepared.data, process)
        loader = _loader(prepared, process, start)
        averaged = AveragedNetwork(network, config, found) if config.train.ema else None
        stepper = Stepper(config, process, network, optimizer, loader, averaged)
        return Loop(run, stepper, loader, log).run(start)


def _peak_flops(config: TrainConfig, process: Process) -> float | None:
    own = config.log.peak_tflops
    return own * 1e12 if own else peak_flops(process.device, config.train.precision)


def _peak_seconds(prepared: _Prepared, process: Process) -> float | None:
    """What a step takes at the device's peak."""
    peak = _peak_flops(prepared.config, process)
    if prepared.cost is None or peak is None:
        return None
    return prepared.cost.flops * prepared.config.train.accumulate / peak


def _loader(prepared: _Prepared, process: Process, start: int) -> PairLoader | FeatureLoader:
    """The batches from step ``start`` on; of a frozen backbone the features are extracted first."""
    config, data, network = prepared.config, prepared.data, prepared.network
    if config.train.frozen and isinstance(network, ReSeND):
        features = training_features(network, config, data, process)
        return feature_loader(data, features, config, process, start)
    return pair_loader(data, config, process, start)


def _summary(recipe: TrainConfig, prepared: _Prepared, process: Process) -> list[str]:
    config, found = prepared.config, prepared.found
    loop, model, plan = config.train, config.model, prepared.data.plan
    pairs = loop.iterations * loop.global_batch
    micro_batches = process.world_size * loop.accumulate
    lines = [
        f"{config.task}: {len(prepared.data.rows):,} images of {plan.num_classes:,} classes, "
        f"{plan.pairs_per_epoch:,} pairs per epoch",
        f"{loop.iterations:,} steps of {loop.global_batch:,} pairs = {pairs:,} pairs, "
        f"{pairs / plan.pairs_per_epoch:.2f} epochs; {loop.global_batch // micro_batches:,} pairs "
        f"at a time on each of {process.world_size} x {process.device.type}",
        _input_line(config),
    ]
    if isinstance(plan, ClassPlan):
        lines.append(_groups_line(config, plan))
    if isinstance(prepared.network, ReSeND) and loop.frozen:
        lines.append(_frozen_line(loop, len(prepared.data.rows), prepared.network))
    if config.scale != recipe.scale:
        lines.insert(0, scaling_line(recipe, config))
    if found is not None:
        unverified = "" if found.verified else ", whose checkpoint has no checksums to verify"
        lines.append(f"continuing {config.out} after step {found.step}{unverified}")
        return lines
    if config.task == "relation" and model.similarity_start == "whitened":
        lines.append(
            "the similarity is whitened by the covariance of the starting backbone's features, "
            "which are extracted first"
        )
    if model.pretrained:
        fetched = " (not fetched in a dry run)" if config.dry_run else ""
        lines.append(f"the backbone starts from timm's weights of {model.backbone}{fetched}")
    elif model.backbone_weights is None:
        lines.append(
            "the backbone starts from random weights; to start from trained ones set "
            "model.pretrained or model.backbone_weights"
        )
    return lines


def _groups_line(config: TrainConfig, plan: ClassPlan) -> str:
    sampling = config.data.sampling
    groups = f"{sampling.groups:,} groups" if sampling.groups > 1 else "1 group"
    line = (
        f"pairs share images: {groups} of {sampling.classes:,} classes x {sampling.images} images "
        f"= {sampling.groups * sampling.images_per_group:,} images per step, of which "
        f"{config.train.global_batch:,} pairs are formed"
    )
    if sampling.hard_negatives:
        line += (
            f"; {sampling.hard_negatives:,} of the {sampling.negatives:,} negatives of each "
            "positive pair are chosen by similarity"
        )
    if plan.num_small:
        line += (
            f"; {plan.num_small:,} of {plan.num_classes:,} classes have fewer than "
            f"{sampling.images} images, which repeat in a group with other augmentations"
        )
    return line


def _frozen_line(loop: LoopConfig, num_images: int, network: ReSeND) -> str:
    views = f"{loop.views} augmented views" if loop.views > 1 else "the view of evaluation"
    width = network.relation.proj.in_features
    size = 2 * loop.views * num_images * width / 2**30
    return (
        f"the backbone is frozen: features of {views} of each image, {size:.2f} GiB in float16, "
        f"are kept in {loop.feature_cache} and extracted first where they are not there"
    )


def _input_line(config: TrainConfig) -> str:
    p, device = config.input.preprocessing, dali_device(config.input.device)
    threads = config.input.num_threads or cores_per_process()
    return (
        f"input: {p.image_size} x {p.image_size} pixels, {p.interpolation}, evaluated with "
        f"crop_mode {p.crop_mode}; DALI on {device} with {threads} threads per process"
    )


def _memory(prepared: _Prepared) -> str:
    cost = prepared.cost
    assert cost is not None  # of a dry run
    without = ", before activation checkpointing"
    note = without if prepared.config.train.activation_checkpointing else ""
    state, activations = cost.state_bytes / 2**30, cost.activation_bytes / 2**30
    return (
        f"{cost.parameters:,} parameters, {cost.flops / 1e12:.2f} TFLOP for the pairs "
        f"taken at a time; memory of each device: {state:.2f} GiB of weights, gradients and "
        f"optimizer, about {activations:.2f} GiB of activations in float32, half in bfloat16{note}"
    )
