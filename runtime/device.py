"""Which device a process uses: one rule for torch and for DALI."""

import os
import warnings
from pathlib import Path
from typing import Literal

import torch

from runtime.command import DeviceName
from runtime.errors import ConfigError

# Any of these exists where the kernel has loaded NVIDIA's driver.
_DRIVER_FILES = tuple(map(Path, ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvidia0")))


def resolve_device(wanted: DeviceName, local_rank: int = 0) -> torch.device:
    """The device of process ``local_rank`` of this machine; ``auto`` is a GPU where torch sees one.

    ``auto`` never falls back to the CPU silently: a machine with NVIDIA's driver whose GPUs torch
    does not see is an error, unless ``CUDA_VISIBLE_DEVICES`` hides them (empty or -1), which asks
    for the CPU.

    Raises:
        ConfigError: a GPU is asked for and there is none, or none for this process; or ``auto`` on
            a machine with NVIDIA's driver where torch sees no GPU.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the errors below say it better
        available = torch.cuda.is_available()
    if not available and wanted == "auto" and (_gpus_are_hidden() or not _has_driver()):
        return torch.device("cpu")
    if not available:
        raise ConfigError(_unseen_gpu(wanted))
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own "
            f"({torch.cuda.device_count()} visible); start fewer processes"
        )
    return torch.device("cuda", local_rank)


def dali_device(wanted: DeviceName) -> Literal["cpu", "gpu"]:
    """DALI's name of the device that ``resolve_device`` gives."""
    return "cpu" if resolve_device(wanted).type == "cpu" else "gpu"


def _gpus_are_hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")


def _has_driver() -> bool:
    return any(path.exists() for path in _DRIVER_FILES)


def _unseen_gpu(wanted: DeviceName) -> str:
    """Why there is no GPU for ``wanted``, and what to do."""
    if not _has_driver():
        return (
            "device gpu was requested, but this machine has no NVIDIA driver; use --device cpu, or "
            "--input.device=cpu in training"
        )
    if _gpus_are_hidden():
        return "device gpu was requested, but CUDA_VISIBLE_DEVICES hides all GPUs; unset it"
    cuda = torch.version.cuda
    built = f"needs a driver for CUDA {cuda}" if cuda else "is built for CPUs only"
    return (
        f"device is {wanted} and this machine has an NVIDIA driver, but torch sees no GPU: torch "
        f"{torch.__version__} {built}; install the torch that fits the driver (table in "
        "README.md), or use --device cpu (--input.device=cpu in training)"
    )
