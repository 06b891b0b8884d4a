"""The provenance of results: command, networks, configuration and versions."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from nvidia import dali

from evaluation.config import EvaluateConfig
from evaluation.networks import NamedNetwork
from runtime.config import plain
from runtime.distributed import Process

_LIBRARIES = ("torch", "timm", "scikit-learn")


@dataclass(frozen=True)
class Receipt:
    """The provenance of results.

    Attributes:
        command: as it was typed.
        networks: what was evaluated.
        options: the command's options.
        process: the one that writes the results.
        seconds: how long the command took.
        date: when it ended, with the time zone.
    """

    command: str
    networks: Sequence[NamedNetwork]
    options: EvaluateConfig
    process: Process
    seconds: float
    date: datetime = field(default_factory=lambda: datetime.now().astimezone(), init=False)

    def plain(self) -> dict[str, Any]:
        """The receipt as the JSON document that ``results.json`` holds."""
        versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
        return {
            "command": self.command,
            "networks": [_network(network) for network in self.networks],
            "configuration": plain(self.options),
            "device": str(self.process.device),
            "processes": self.process.world_size,
            "python": platform.python_version(),
            "versions": versions | {"nvidia-dali": dali.__version__},
            "date": self.date.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
        }


def _network(network: NamedNetwork) -> dict[str, Any]:
    found = network.provenance
    return {
        "name": network.name,
        "backbone": found.backbone,
        "relational": not network.is_bare,
        "checkpoint": {
            "path": None if found.path is None else str(found.path),
            "step": found.step,
            "averaged": found.averaged,
            "sha256": found.sha256,
            "verified": found.verified,
            "untrained": list(found.untrained),
        },
        "training": found.config,
        "preprocessing": asdict(network.trained.network.preprocessing),
    }
