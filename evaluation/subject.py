"""What is evaluated: a network with the evaluators that score it, ready to run on a protocol."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from evaluation.benchmark import BenchmarkConfig, BenchmarkResult, run_benchmark
from evaluation.cache import FeatureCache
from evaluation.config import (
    BATCH_SIZE,
    ClassifierOptions,
    EvaluateConfig,
    NetworkOptions,
    ReferenceConfig,
)
from evaluation.evaluator_choice import choose_evaluators
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.networks import NamedNetwork, load_networks
from evaluation.protocol import Protocol
from evaluation.training_images import TrainingImages
from model.config import EvaluatorOptions, PreprocessingOptions
from model.errors import EvaluatorError
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError


@dataclass(frozen=True)
class Job:
    """A protocol, those of its targets to evaluate, and the pack of its data set, or data sets."""

    protocol: Protocol
    targets: Sequence[str]
    pack: Pack


@dataclass(frozen=True)
class Subject:
    """A network that is evaluated.

    Attributes:
        network: the network, and what it is called.
        extractor: of its features.
        config: how it is scored.
    """

    network: NamedNetwork
    extractor: FeatureExtractor
    config: BenchmarkConfig

    def learning_from(self, images: TrainingImages | None) -> "Subject":
        """The subject whose whitened-cosine learns from ``images``, if there are any."""
        if images is None:
            return self
        options = replace(self.config.options, whitening=images.whitening(self.extractor))
        return replace(self, config=replace(self.config, options=options))

    def run(self, job: Job) -> BenchmarkResult:
        """Evaluate the job's targets.

        Raises:
            ConfigError: an evaluator cannot be computed from the references.
            PackError: see ``run_benchmark``.
        """
        extractor = replace(self.extractor, pack=job.pack)
        try:
            result = run_benchmark(job.protocol, job.targets, extractor, self.config)
        except EvaluatorError as error:
            raise ConfigError(f"protocol {job.protocol.name}: {error}") from error
        return replace(result, network=self.network.name)


def load_subjects(options: EvaluateConfig, pack: Pack, process: Process) -> list[Subject]:
    """The networks of ``options``, each with its evaluators; their features are of ``pack``.

    Raises:
        CheckpointError, ConfigError: see ``load_networks`` and ``choose_evaluators``.
    """
    preprocessing = options.part(PreprocessingOptions)
    networks = process.run_long(
        partial(load_networks, options.part(NetworkOptions), preprocessing, process.device)
    )
    evaluators = choose_evaluators(
        networks,
        options.evaluators,
        learns_whitening=options.covariance_pack is not None,
        classifier=options.classifier,
    )
    return [
        Subject(network, _extractor(network, options, pack, process), _config(options, names))
        for network, names in zip(networks, evaluators, strict=True)
    ]


def _extractor(
    network: NamedNetwork, options: EvaluateConfig, pack: Pack, process: Process
) -> FeatureExtractor:
    sha256 = network.provenance.backbone_sha256
    config = ExtractionConfig(
        InputConfig(device=options.device),
        options.batch_size or BATCH_SIZE[process.device.type],
        options.precision,
    )
    cache = None if options.no_cache else FeatureCache(options.cache, sha256)
    return FeatureExtractor(network.trained, pack, process, config, cache)


def _config(options: EvaluateConfig, evaluators: tuple[str, ...]) -> BenchmarkConfig:
    return BenchmarkConfig(
        evaluators=evaluators,
        options=EvaluatorOptions(
            significant=options.significant,
            neighbors=options.neighbors,
            top=options.top,
            memory=options.memory << 20 or None,
            precision=options.precision,
        ),
        references=options.part(ReferenceConfig),
        classifier=options.part(ClassifierOptions),
        resamples=options.resamples,
    )
