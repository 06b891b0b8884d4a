"""Which device a process uses: one rule for torch and for DALI."""

from typing import Literal

import torch

from runtime.errors import ConfigError

DeviceName = Literal["auto", "cpu", "gpu"]


def resolve_device(wanted: DeviceName, local_rank: int = 0) -> torch.device:
    """The device of process ``local_rank`` of this machine; ``auto`` is a GPU where torch sees one.

    Raises:
        ConfigError: a GPU is asked for and there is none, or none for this process.
    """
    available = torch.cuda.is_available()
    if wanted == "gpu" and not available:
        raise ConfigError("device gpu was requested, but torch sees no GPU; use cpu or auto")
    if not available or wanted == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own "
            f"({torch.cuda.device_count()} visible); start fewer processes"
        )
    return torch.device("cuda", local_rank)


def dali_device(wanted: DeviceName) -> Literal["cpu", "gpu"]:
    """DALI's name of the device that ``resolve_device`` gives."""
    return "cpu" if resolve_device(wanted).type == "cpu" else "gpu"
