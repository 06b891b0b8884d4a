"""Optimizers and learning-rate schedules of the recipes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from timm.optim import Lars
from torch import Tensor, nn

from runtime.errors import ConfigError
from training.config import OptimizerConfig, ScheduleConfig

_TRUST, _EPS = 0.001, 1e-8  # torchlars's defaults, which the paper's training used


def lr_factor(schedule: ScheduleConfig, step: int, iterations: int) -> float:
    """The factor of the learning rate at ``step`` (from 0) of ``iterations``.

    The warm-up and the step rule are the original's: ``step / warmup``, then ``gamma`` raised to
    the number of milestones reached, which count from the end of the warm-up. With the paper's
    13,000 iterations the milestone is therefore never reached.
    """
    if step < schedule.warmup:
        return step / schedule.warmup
    since = step - schedule.warmup
    if schedule.name == "step":
        return schedule.gamma ** sum(since >= milestone for milestone in schedule.milestones)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * since / max(1, iterations - schedule.warmup)))
    return 1.0


class ParameterGroup(NamedTuple):
    """Parameters that share a factor of the learning rate."""

    parameters: list[nn.Parameter]
    factor: float


def build_optimizer(
    config: OptimizerConfig, groups: Sequence[ParameterGroup]
) -> torch.optim.Optimizer:
    """The configured optimizer for these groups of parameters.

    Raises:
        ConfigError: torchlars is asked for and cannot be imported.
    """
    parameters: list[dict[str, Any]] = [
        {"params": group.parameters, "factor": group.factor} for group in groups
    ]
    fused = all(p.is_cuda for group in parameters for p in group["params"])
    if config.name == "adamw":
        return torch.optim.AdamW(
            parameters,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=fused,
        )
    if config.name == "lars":
        return Lars(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            trust_coeff=_TRUST,
            eps=_EPS,
            always_adapt=True,
        )
    sgd = torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=fused,
    )
    return sgd if config.name == "sgd" else _torchlars(sgd)


def num_moments(config: OptimizerConfig) -> int:
    """Tensors of a parameter's size that the optimizer keeps for each parameter."""
    return 2 if config.name == "adamw" else 1


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set ``lr`` times the group's own factor in each group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def trust_ratios(parameters: Sequence[nn.Parameter], weight_decay: float) -> Tensor:
    """The factor by which LARS scales each parameter's update, (number of parameters,).

    ``0.001 |w| / (|g| + weight_decay |w| + 1e-8)``, 1 where either norm is 0 (torchlars 0.1.2).
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    weight = torch.stack(torch._foreach_norm([parameter.detach() for parameter in trained]))
    gradient = torch.stack(torch._foreach_norm([p.grad for p in trained if p.grad is not None]))
    ratio = _TRUST * weight / (gradient + weight_decay * weight + _EPS)
    return torch.where((weight > 0) & (gradient > 0), ratio, 1.0)


def _torchlars(sgd: torch.optim.SGD) -> torch.optim.Optimizer:
    try:
        from torchlars import LARS
    except ImportError as error:
        raise ConfigError(
            f"optimizer.name is torchlars, which cannot be imported ({error}); "
            "use lars, which computes the same updates"
        ) from error
    return LARS(optimizer=sgd, eps=_EPS, trust_coef=_TRUST)
