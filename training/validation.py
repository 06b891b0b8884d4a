"""AUROC on a benchmark during training."""

import copy

import torch

from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.protocol import Protocol
from evaluation.trained import TrainedNetwork
from model.config import NEED_CLASSIFIER, RENAMED_EVALUATORS, WHITENED_COSINE
from model.errors import EvaluatorError
from model.evaluators import check_names
from model.network import Classifier, ReSeND
from pipelines.pack import Pack
from runtime.command import current_name
from runtime.distributed import Process
from runtime.errors import ConfigError
from runtime.precision import exact_float32
from training.config import TrainConfig


class Validation:
    """Evaluates the network that is trained on ``validation.protocol``.

    Raises:
        ConfigError: the run trains a classifier, there is no such evaluator, it needs a classifier
            or is whitened-cosine and the start is not whitened, the protocol cannot be read, or one
            of its data sets has no pack.
        PackError: the pack cannot be read.
    """

    def __init__(
        self, config: TrainConfig, network: ReSeND | Classifier, pack: Pack, process: Process
    ) -> None:
        settings = config.validation
        assert settings.protocol is not None
        if not isinstance(network, ReSeND):
            raise ConfigError("validation needs task: relation; set validation.protocol to null")
        self._evaluator = current_name(settings.evaluator, RENAMED_EVALUATORS)
        try:
            check_names((self._evaluator,))
        except EvaluatorError as error:
            raise ConfigError(f"validation.evaluator: {error}") from error
        if self._evaluator == WHITENED_COSINE and network.relation.whitening is None:
            raise ConfigError(
                f"validation.evaluator {WHITENED_COSINE} needs a covariance; set "
                "model.similarity_start to whitened, or choose another evaluator"
            )
        if self._evaluator in NEED_CLASSIFIER:
            raise ConfigError(
                f"validation.evaluator {self._evaluator} needs a classifier, which validation does "
                "not train; choose another evaluator"
            )
        self._config, self._network, self._process = config, network, process
        self._pack = pack if settings.pack is None else Pack(settings.pack)
        self._protocol = Protocol.load(settings.protocol)
        self._protocol.choose(self._pack.members)
        names = settings.targets or tuple(target.name for target in self._protocol.targets)
        self._targets = [self._protocol.target(name).name for name in names]

    @exact_float32()
    def measure(self) -> dict[str, float]:
        """``auroc``, the mean over the targets, and ``auroc/TARGET``; all processes call it.

        Raises:
            ConfigError: the evaluator cannot be computed from the references (e.g. too few).
            PackError: an image is damaged, or the protocol does not fit the pack.
        """
        frozen = copy.deepcopy(self._network).requires_grad_(False).eval()
        settings = self._config.validation
        extractor = FeatureExtractor(
            TrainedNetwork(frozen, frozen.backbone),
            self._pack,
            self._process,
            ExtractionConfig(self._config.input, settings.batch_size),
        )
        config = BenchmarkConfig(evaluators=(self._evaluator,), resamples=1)
        with torch.no_grad():
            try:
                result = run_benchmark(self._protocol, self._targets, extractor, config)
            except EvaluatorError as error:
                raise ConfigError(f"validation.evaluator: {error}") from error
        areas = {
            target.name: target.evaluators[self._evaluator].metrics["auroc"]
            for target in result.targets
        }
        named = {f"auroc/{name}": area for name, area in areas.items()}
        return {"auroc": sum(areas.values()) / len(areas), **named}
