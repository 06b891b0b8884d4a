"""What a training step costs in arithmetic and memory, and what devices offer."""

import copy
import re
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.shared_head import first_block, pair_logits


class Peak(NamedTuple):
    """Dense TFLOP/s of a GPU's matrix products; None where it cannot do them at full speed.

    Attributes:
        float32: for float32 values after ``runtime.precision.use_tensor_float32``: in TF32 where
            the GPU has it.
        bfloat16: for bfloat16 values, accumulated in float32.
    """

    float32: float
    bfloat16: float | None


# From NVIDIA's data sheets, without sparsity; names are words of what CUDA reports.
_PEAKS = {
    "V100": Peak(15.7, None),
    "T4": Peak(8.1, None),
    "A10": Peak(62.5, 125.0),
    "A10G": Peak(35.0, 70.0),
    "A30": Peak(82.0, 165.0),
    "A40": Peak(74.8, 149.7),
    "A100": Peak(156.0, 312.0),
    "L4": Peak(60.0, 121.0),
    "L40": Peak(90.5, 181.0),
    "L40S": Peak(183.0, 362.0),
    "H100": Peak(495.0, 989.0),
    "H100 NVL": Peak(418.0, 835.0),
    "H100 PCIe": Peak(378.0, 756.0),
    "GH200": Peak(495.0, 989.0),
    "H200": Peak(495.0, 989.0),
    "H200 NVL": Peak(418.0, 835.0),
    "B200": Peak(1125.0, 2250.0),
}


@dataclass(frozen=True)
class Cost:
    """What one training step costs a device.

    Attributes:
        flops: floating-point operations, forward and backward, a multiply-add counting two.
        parameters: trained parameters.
        state_bytes: weights, gradients and optimizer state in float32.
        activation_bytes: tensors kept for the backward pass, in float32.
    """

    flops: float
    parameters: int
    state_bytes: int
    activation_bytes: int


class SharedPairs(NamedTuple):
    """The pairs of a step in which each image occurs many times.

    Attributes:
        number: how many pairs a device processes at a time.
        at_once: of how many of them the activations are alive together.
    """

    number: int
    at_once: int


def training_cost(
    network: nn.Module,
    images: int,
    example: tuple[int, ...],
    moments: int,
    pairs: SharedPairs | None = None,
) -> Cost:
    """The cost of a step with ``images`` images, found on the meta device.

    Args:
        network: any network whose input is images, or the features of a frozen backbone;
            ``ReSeND`` where ``pairs`` are given.
        images: how many images (an even number) a device processes at a time.
        example: the shape of the network's input for one image.
        moments: tensors of a parameter's size that are kept for it besides its gradient, such as
            the optimizer's.
        pairs: those of the images; None where the network forms them itself.
    """
    shadow: Any = copy.deepcopy(network).to("meta").train()
    # Two images, and two pairs, suffice: every cost is linear in their number.
    inputs = torch.empty(2, *example, device="meta")
    if pairs is None:
        per_image = _count(shadow, lambda: shadow(inputs))
        flops, activations = per_image.flops * images / 2, per_image.kept * images // 2
    else:
        relation, places = shadow.relation, torch.empty(2, dtype=torch.long, device="meta")
        per_image = _count(shadow, lambda: first_block(relation, shadow.backbone(inputs)))
        shared = first_block(relation, shadow.backbone(inputs))
        per_pair = _count(shadow, lambda: pair_logits(relation, shared, places, places))
        flops = (per_image.flops * images + per_pair.flops * pairs.number) / 2
        activations = (per_image.kept * images + per_pair.kept * pairs.at_once) // 2
    parameters = sum(parameter.numel() for parameter in shadow.parameters())
    return Cost(
        flops=3 * flops,  # backward costs twice the forward
        parameters=parameters,
        state_bytes=4 * parameters * (2 + moments),
        activation_bytes=activations,
    )


class _Counted(NamedTuple):
    """Operations of a forward pass, and the bytes that it keeps for the backward pass."""

    flops: int
    kept: int


def _count(network: nn.Module, forward: Callable[[], object]) -> _Counted:
    own = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}
    tensors: list[Tensor] = []  # kept alive, so that no two storages have the same address

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
            tensors.append(tensor)
        return tensor

    counter = FlopCounterMode(display=False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), counter:
        forward()
    return _Counted(counter.get_total_flops(), sum(kept.values()))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak for ``train.precision`` in FLOP/s; None where it is not known."""
    if device.type != "cuda":
        return None
    peak = _peak(torch.cuda.get_device_name(device))
    tflops = peak and (peak.bfloat16 if precision == "bfloat16" else peak.float32)
    return tflops and tflops * 1e12


def _peak(name: str) -> Peak | None:
    """The peak of the GPU that CUDA calls ``name``; None if it is unknown or a MIG slice."""
    if "MIG" in name:
        return None
    for key in sorted(_PEAKS, key=len, reverse=True):
        if re.search(rf"\b{key}\b", name):
            return _PEAKS[key]
    return None


def memory_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: what torch allocated on the GPU, else that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
