"""What results come from: command, checkpoint, configuration and versions."""

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Any

from nvidia import dali

from evaluation.trained import Provenance

_LIBRARIES = ("torch", "timm", "scikit-learn")


@dataclass(frozen=True)
class Receipt:
    """What results come from.

    Attributes:
        command: as it was typed.
        network: the checkpoint that was read.
        configuration: the command's options, defaults included.
        device: where the networks ran.
        processes: how many there were.
        seconds: how long the command took.
    """

    command: str
    network: Provenance
    configuration: dict[str, Any]
    device: str
    processes: int
    seconds: float

    def plain(self) -> dict[str, Any]:
        """The receipt as it stands in ``results.json``."""
        network = self.network
        versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
        return {
            "command": self.command,
            "checkpoint": {
                "path": str(network.path),
                "step": network.step,
                "sha256": network.sha256,
                "verified": network.verified,
                "untrained": list(network.untrained),
            },
            "configuration": self.configuration,
            "training": network.config,
            "device": self.device,
            "processes": self.processes,
            "python": platform.python_version(),
            "versions": versions | {"nvidia-dali": dali.__version__},
            "seconds": round(self.seconds, 3),
        }
