"""Costs are counted, not measured."""

import pytest
import torch
from torch import nn

from model.config import ModelConfig, Preprocessing
from model.network import build_network
from training.cost import SharedPairs, memory_gib, peak_flops, training_cost


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, images):
        return self.relu(self.conv(images)).mean((1, 2, 3))


def test_arithmetic_and_memory_of_a_convolution_are_exact():
    cost = training_cost(Tiny(), images=8, example=(3, 16, 16), moments=1)
    outputs = 4 * 16 * 16
    assert cost.flops == 8 * 3 * 2 * outputs * 3 * 9
    assert cost.parameters == 4 * 3 * 9
    assert cost.state_bytes == 3 * 4 * cost.parameters
    # the convolution keeps its input, the ReLU its output
    assert cost.activation_bytes == 8 * 4 * (3 * 16 * 16 + outputs)


def test_images_and_shared_pairs_each_cost_what_they_take():
    network = build_network(ModelConfig("test_convnext", 48, 2, 2), Preprocessing(image_size=32))

    def cost(images, pairs, at_once):
        return training_cost(network, images, (3, 32, 32), 1, SharedPairs(pairs, at_once))

    few, images, pairs, parts = cost(8, 4, 4), cost(16, 4, 4), cost(8, 8, 8), cost(8, 8, 4)
    both = cost(16, 8, 8)
    assert few.flops < pairs.flops < images.flops
    assert few.flops + both.flops == images.flops + pairs.flops
    assert parts.flops == pairs.flops
    assert parts.activation_bytes == few.activation_bytes < pairs.activation_bytes
    # An image that is in one pair costs no more than where the network forms the pairs.
    independent = training_cost(network, 8, (3, 32, 32), 1)
    assert 0.9 * independent.flops < few.flops < independent.flops


def test_a_cpu_has_memory_but_no_known_peak():
    assert memory_gib(torch.device("cpu")) > 0.01
    assert peak_flops(torch.device("cpu"), "bfloat16") is None


@pytest.mark.parametrize(
    ("name", "float32", "bfloat16"),
    [
        ("NVIDIA H100 80GB HBM3", 495, 989),
        ("NVIDIA H100 PCIe", 378, 756),
        ("NVIDIA H100 NVL", 418, 835),
        ("NVIDIA A100-SXM4-80GB", 156, 312),
        ("NVIDIA A10", 62.5, 125),
        ("NVIDIA A10G", 35, 70),
        ("NVIDIA L4", 60, 121),
        ("NVIDIA L40", 90.5, 181),
        ("NVIDIA L40S", 183, 362),
        ("Tesla V100-SXM2-16GB", 15.7, None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None, None),
        ("NVIDIA GeForce RTX 4090", None, None),
    ],
)
def test_peaks_are_those_of_the_gpu_and_of_the_precision(monkeypatch, name, float32, bfloat16):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda", 0)
    for precision, tflops in (("float32", float32), ("bfloat16", bfloat16)):
        expected = None if tflops is None else pytest.approx(tflops * 1e12)
        assert peak_flops(gpu, precision) == expected
