"""AUROC on a benchmark during training."""

import copy

import torch

from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.protocol import Protocol
from evaluation.trained import TrainedNetwork
from model.errors import EvaluatorError
from model.evaluators import check_names
from model.network import Classifier, ReSeND
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError
from runtime.precision import exact_float32
from training.config import TrainConfig


class Validation:
    """A protocol that the network is evaluated on after each checkpoint.

    Raises:
        ConfigError: the run trains a classifier, or there is no such evaluator.
        ConfigError: the protocol cannot be read.
        PackError: its pack cannot be read, or they do not fit.
    """

    def __init__(self, config: TrainConfig, pack: Pack, process: Process) -> None:
        settings = config.validation
        assert settings.protocol is not None
        if config.task != "relation":
            raise ConfigError("validation needs task: relation; set validation.protocol to null")
        try:
            check_names((settings.evaluator,))
        except EvaluatorError as error:
            raise ConfigError(f"validation.evaluator: {error}") from error
        self._config, self._process = config, process
        self._pack = pack if settings.pack is None else Pack(settings.pack)
        self._protocol = Protocol.load(settings.protocol)
        names = settings.targets or tuple(target.name for target in self._protocol.targets)
        self._targets = [self._protocol.target(name).name for name in names]

    @exact_float32()
    def measure(self, network: ReSeND | Classifier) -> dict[str, float]:
        """``auroc``, the mean over the targets, and ``auroc/TARGET``; all processes call it."""
        assert isinstance(network, ReSeND)
        frozen = copy.deepcopy(network).requires_grad_(False).eval()
        settings = self._config.validation
        extractor = FeatureExtractor(
            TrainedNetwork(frozen, frozen.backbone),
            self._pack,
            self._process,
            ExtractionConfig(self._config.input, settings.batch_size),
        )
        config = BenchmarkConfig(evaluators=(settings.evaluator,), resamples=1)
        with torch.no_grad():
            result = run_benchmark(self._protocol, self._targets, extractor, config)
        areas = {
            target.name: target.evaluators[settings.evaluator].metrics["auroc"]
            for target in result.targets
        }
        named = {f"auroc/{name}": area for name, area in areas.items()}
        return {"auroc": sum(areas.values()) / len(areas), **named}
