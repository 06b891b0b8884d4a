"""What a network costs: arithmetic, memory, and how much of a device's peak it uses."""

import copy
import resource
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# Dense TFLOP/s in (float32, bfloat16), from NVIDIA's data sheets; names as CUDA reports them.
_PEAK_TFLOPS = {
    "V100": (15.7, None),
    "A100": (19.5, 312.0),
    "A30": (10.3, 165.0),
    "A10": (31.2, 125.0),
    "L40S": (91.6, 362.0),
    "L4": (30.3, 121.0),
    "H100": (67.0, 989.0),
    "H200": (67.0, 989.0),
    "B200": (75.0, 2250.0),
}


@dataclass(frozen=True)
class Cost:
    """What one training step costs a device.

    Attributes:
        flops: floating-point operations, forward and backward, a multiply-add counting two.
        parameters: numbers that are trained.
        state_bytes: weights, gradients and optimiser state in float32.
        activation_bytes: tensors kept for the backward pass, in float32.
    """

    flops: float
    parameters: int
    state_bytes: int
    activation_bytes: int


def training_cost(network: nn.Module, images: int, image_size: int, moments: int) -> Cost:
    """The cost of a step with ``images`` images, found without computing anything.

    Args:
        network: any network of images.
        images: how many images (an even number) a device takes at once.
        image_size: their height and width in pixels.
        moments: tensors of a parameter's size that the optimiser keeps for it.
    """
    shadow = copy.deepcopy(network).to("meta").train()
    own = {_storage(parameter) for parameter in shadow.parameters()}
    kept: dict[int, int] = {}
    tensors: list[Tensor] = []  # keeps their storages, so that no two have the same number

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
            tensors.append(tensor)
        return tensor

    counter = FlopCounterMode(display=False)
    # Two images give the cost of any number of them: everything is linear in it.
    example = torch.empty(2, 3, image_size, image_size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), counter:
        shadow(example)
    parameters = sum(parameter.numel() for parameter in shadow.parameters())
    return Cost(
        flops=3 * counter.get_total_flops() * images / 2,  # backward costs twice the forward
        parameters=parameters,
        state_bytes=4 * parameters * (2 + moments),
        activation_bytes=sum(kept.values()) * images // 2,
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak for ``float32`` or ``bfloat16``, FLOP/s; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for key in sorted(_PEAK_TFLOPS, key=len, reverse=True):
        if key in name:
            peak = _PEAK_TFLOPS[key][precision == "bfloat16"]
            return None if peak is None else peak * 1e12
    return None


def memory_gib(device: torch.device) -> float:
    """The most memory used so far, GiB: of the GPU by torch, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
