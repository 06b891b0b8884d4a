"""Costs are counted, not measured."""

import torch
from torch import nn

from training.cost import memory_gib, peak_flops, training_cost


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, images):
        return self.relu(self.conv(images)).mean((1, 2, 3))


def test_arithmetic_and_memory_of_a_convolution_are_exact():
    cost = training_cost(Tiny(), images=8, image_size=16, moments=1)
    outputs = 4 * 16 * 16
    assert cost.flops == 8 * 3 * 2 * outputs * 3 * 9
    assert cost.parameters == 4 * 3 * 9
    assert cost.state_bytes == 3 * 4 * cost.parameters
    # the convolution keeps its input, the ReLU its output
    assert cost.activation_bytes == 8 * 4 * (3 * 16 * 16 + outputs)


def test_a_cpu_has_memory_but_no_known_peak():
    assert memory_gib(torch.device("cpu")) > 0.01
    assert peak_flops(torch.device("cpu"), "bfloat16") is None
