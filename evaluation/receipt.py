"""The provenance of results: command, checkpoint, configuration and versions."""

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import Any

from nvidia import dali

from evaluation.config import EvaluateConfig
from evaluation.trained import Provenance
from model.config import Preprocessing
from runtime.config import plain
from runtime.distributed import Process

_LIBRARIES = ("torch", "timm", "scikit-learn")


@dataclass(frozen=True)
class Receipt:
    """The provenance of results.

    Attributes:
        command: as it was typed.
        network: the checkpoint that was read.
        preprocessing: how images became the network's input.
        options: the command's options.
        process: the one that writes the results.
        seconds: how long the command took.
    """

    command: str
    network: Provenance
    preprocessing: Preprocessing
    options: EvaluateConfig
    process: Process
    seconds: float

    def plain(self) -> dict[str, Any]:
        """The receipt as the JSON document that ``results.json`` holds."""
        network = self.network
        versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
        return {
            "command": self.command,
            "checkpoint": {
                "path": str(network.path),
                "step": network.step,
                "averaged": network.averaged,
                "sha256": network.sha256,
                "verified": network.verified,
                "untrained": list(network.untrained),
            },
            "configuration": plain(self.options),
            "training": network.config,
            "preprocessing": asdict(self.preprocessing),
            "device": str(self.process.device),
            "processes": self.process.world_size,
            "python": platform.python_version(),
            "versions": versions | {"nvidia-dali": dali.__version__},
            "seconds": round(self.seconds, 3),
        }
