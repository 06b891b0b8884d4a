"""Optimizers and schedules follow the original's rules."""

import copy
import sys
import types

import pytest
import torch
from torch import nn

from runtime.errors import ConfigError
from training.config import OptimizerConfig, ScheduleConfig
from training.optimization import ParameterGroup, build_optimizer, lr_factor, set_lr, trust_ratios

PAPER = OptimizerConfig()


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    nn.init.zeros_(layers[3].weight)  # a parameter of norm 0, whose factor is 1
    return layers.double()


def gradients(network, step):
    torch.manual_seed(step)
    network.zero_grad()
    network(torch.randn(16, 6, dtype=torch.float64)).square().mean().backward()


def rule(parameters, buffers, lr, decay=5e-4, momentum=0.9):
    """torchlars 0.1.2 over SGD, as stated by its source, in plain arithmetic."""
    for number, p in enumerate(parameters):
        weight, gradient = p.norm(), p.grad.norm()
        factor = 0.001 * weight / (gradient + decay * weight + 1e-8)
        if weight == 0 or gradient == 0:
            factor = 1.0
        update = (p.grad + decay * p) * factor
        buffers[number] = update if number not in buffers else momentum * buffers[number] + update
        p -= lr * buffers[number]


def test_ten_steps_of_lars_are_those_of_the_original_rule(network):
    expected = copy.deepcopy(network)
    optimizer = build_optimizer(PAPER, [ParameterGroup(list(network.parameters()), 1.0)])
    buffers = {}
    for step in range(10):
        gradients(network, step)
        gradients(expected, step)
        set_lr(optimizer, 0.1 * step)
        optimizer.step()
        with torch.no_grad():
            rule(list(expected.parameters()), buffers, 0.1 * step)
        for ours, theirs in zip(network.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_trust_ratios_are_those_that_lars_applies(network):
    gradients(network, 0)
    ratios = trust_ratios(list(network.parameters()), 5e-4)
    for p, ratio in zip(network.parameters(), ratios, strict=True):
        if p.norm() == 0 or p.grad.norm() == 0:
            assert ratio == 1
        else:
            expected = 0.001 * p.norm() / (p.grad.norm() + 5e-4 * p.norm() + 1e-8)
            torch.testing.assert_close(ratio, expected.detach())


def test_paper_schedule_is_the_originals_at_each_step():
    schedule = ScheduleConfig()
    for step in range(600):
        expected = 0.008 * step / 500 if step < 500 else 0.008
        assert PAPER.lr * lr_factor(schedule, step, 13_000) == pytest.approx(expected)
    for step in range(12_990, 13_500):  # the paper stops at 13,000, before its only milestone
        assert lr_factor(schedule, step, 13_000) == 1
    for step in range(13_500, 13_510):
        assert lr_factor(schedule, step, 20_000) == pytest.approx(0.1)


def test_cosine_falls_to_zero_and_constant_stays():
    cosine, constant = ScheduleConfig("cosine", warmup=10), ScheduleConfig("constant", warmup=0)
    assert lr_factor(cosine, 10, 110) == 1
    assert lr_factor(cosine, 60, 110) == pytest.approx(0.5)
    assert lr_factor(cosine, 110, 110) == pytest.approx(0)
    assert lr_factor(constant, 0, 10) == lr_factor(constant, 10**6, 10) == 1


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_backbone_factor_scales_its_group_alone(network, name):
    groups = [
        ParameterGroup(list(network[number].parameters()), factor)
        for number, factor in ((0, 0.3), (3, 1.0))
    ]
    optimizer = build_optimizer(OptimizerConfig(name=name), groups)
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.15, 0.5]


def test_absent_torchlars_is_named_with_its_replacement(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchlars", None)
    with pytest.raises(ConfigError, match="use lars"):
        build_optimizer(
            OptimizerConfig(name="torchlars"), [ParameterGroup(list(network.parameters()), 1.0)]
        )


def test_torchlars_wraps_sgd_where_it_imports(network, monkeypatch):
    calls = []
    stand_in = types.SimpleNamespace(LARS=lambda **options: calls.append(options) or "wrapped")
    monkeypatch.setitem(sys.modules, "torchlars", stand_in)
    built = build_optimizer(
        OptimizerConfig(name="torchlars"), [ParameterGroup(list(network.parameters()), 1.0)]
    )
    assert built == "wrapped"
    assert calls[0]["eps"] == 1e-8
    assert calls[0]["trust_coef"] == 0.001
    assert isinstance(calls[0]["optimizer"], torch.optim.SGD)
    assert calls[0]["optimizer"].defaults["weight_decay"] == 5e-4
