"""The options of ``python -m evaluation reproduce``; imports nothing slow."""

from dataclasses import dataclass
from pathlib import Path

from evaluation.config import RunOptions
from evaluation.detectors.options import ComputeOptions
from runtime.errors import ConfigError


@dataclass(frozen=True)
class ReproduceSubject:
    """What is evaluated, and where the tables go.

    Attributes:
        packs: folder of the packs; each is found by its data set.
        out: folder for the tables.
        runs: runs (their newest checkpoints), or what else evaluate.py takes as --checkpoint.
        backbones: bare backbones of timm, with a file for those whose weights timm shall not
            download: NAME or NAME=FILE.
        published: file of the published results.
        overwrite: replace the tables in --out, if any.

    Raises:
        ConfigError: there is no network.
    """

    packs: Path
    out: Path
    runs: tuple[Path, ...] | None = None
    backbones: tuple[str, ...] | None = None
    published: Path = Path("configs/published/results.yaml")
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.runs and not self.backbones:
            raise ConfigError("no network given; add --runs or --backbones")


@dataclass(frozen=True)
class ReproduceOptions(ComputeOptions):
    """How it is run.

    Attributes:
        cache: folder where features are kept.
    """

    cache: Path = RunOptions.cache


# Fields come in the reverse order of the bases: those of ReproduceSubject first.
@dataclass(frozen=True)
class ReproduceConfig(ReproduceOptions, ReproduceSubject):
    """The options of ``python -m evaluation reproduce``."""
