"""How a recipe follows the number of devices."""

from dataclasses import replace

from runtime.errors import ConfigError
from training.config import TrainConfig


def resolve(config: TrainConfig, world_size: int, saved_batch: int | None) -> TrainConfig:
    """The configuration with the numbers that apply on ``world_size`` devices.

    With ``scale: linear`` and k times the recipe's devices (each micro-batch of a step counts as
    one), the global batch and the learning rate are multiplied by k, all step counts are divided by
    it, and the decay of averaged weights is raised to the power of k (arXiv 2307.13813). A resumed
    run keeps the global batch that it was started with, ``saved_batch``, and so its sequence of
    pairs.

    Raises:
        ConfigError: the devices cannot share the global batch equally, or a scaled number is out
            of range.
    """
    loop, sampling = config.train, config.data.sampling
    # What the devices share: pairs, or groups of so many pairs.
    key, count, pairs = "train.global_batch", loop.global_batch, 1
    if config.data.grouped:
        key, count, pairs = "data.sampling.groups", sampling.groups, sampling.pairs_per_group
        config = replace(config, train=replace(loop, global_batch=count * pairs))
    if config.scale == "linear":
        if count % loop.recipe_ranks:
            raise ConfigError(
                f"{key} {count} is not a multiple of train.recipe_ranks {loop.recipe_ranks}; "
                "change either"
            )
        count = count // loop.recipe_ranks * world_size * loop.accumulate
        if saved_batch is not None:
            count = max(1, saved_batch // pairs)
        try:
            config = _scaled(config, count * pairs)
        except ValueError as error:
            raise ConfigError(f"scale linear on {world_size} devices: {error}") from error
    micro_batches = world_size * loop.accumulate
    if count % micro_batches:
        raise ConfigError(
            f"{key} {count} cannot be shared equally by "
            f"{world_size} processes x {loop.accumulate} micro-batches; "
            f"choose a multiple of {micro_batches}"
        )
    return config


def scaling_line(recipe: TrainConfig, resolved: TrainConfig) -> str:
    """How the linear scaling rule changed the recipe, in one line."""
    ema = f"ema {recipe.train.ema:g} -> {resolved.train.ema:g}, " if recipe.train.ema else ""
    return (
        f"linear scaling, {recipe.train.global_batch} -> {resolved.train.global_batch} pairs per "
        "step: "
        f"lr {recipe.optimizer.lr:g} -> {resolved.optimizer.lr:g}, {ema}"
        f"steps {recipe.train.iterations} -> {resolved.train.iterations}, "
        f"warm-up {recipe.schedule.warmup} -> {resolved.schedule.warmup} (--scale none keeps them)"
    )


def _scaled(config: TrainConfig, batch: int) -> TrainConfig:
    k = batch / config.train.global_batch
    data, sampling = config.data, config.data.sampling
    if data.grouped:
        sampling = replace(sampling, groups=batch // sampling.pairs_per_group)
    return replace(
        config,
        scale="none",
        data=replace(data, sampling=sampling),
        train=replace(
            config.train,
            global_batch=batch,
            iterations=max(1, round(config.train.iterations / k)),
            ema=config.train.ema**k,
        ),
        optimizer=replace(config.optimizer, lr=config.optimizer.lr * k),
        schedule=replace(
            config.schedule,
            warmup=round(config.schedule.warmup / k),
            milestones=tuple(round(step / k) for step in config.schedule.milestones),
        ),
    )
