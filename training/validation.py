"""Evaluation on a benchmark during training."""

import copy
import itertools
from collections.abc import Sequence

import torch

from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.protocol import Protocol
from evaluation.results import LOWER_IS_BETTER, means
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
from training.output_config import CheckpointConfig

_METRICS = ("auroc", "fpr95", "aupr_known", "aupr_unknown", "accuracy")


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
        names = [settings.evaluator, *settings.evaluators]
        self._evaluators = tuple(
            dict.fromkeys(current_name(name, RENAMED_EVALUATORS) for name in names)
        )
        try:
            check_names(self._evaluators)
        except EvaluatorError as error:
            raise ConfigError(f"validation.evaluator: {error}") from error
        if WHITENED_COSINE in self._evaluators and network.relation.whitening is None:
            raise ConfigError(
                f"validation.evaluator {WHITENED_COSINE} needs a covariance; set "
                "model.similarity_start to whitened, or choose another evaluator"
            )
        if with_classifier := [name for name in self._evaluators if name in NEED_CLASSIFIER]:
            raise ConfigError(
                f"validation.evaluator {with_classifier[0]} needs a classifier, which validation "
                "does not train; choose another evaluator"
            )
        self._config, self._process = config, process
        self._pack = pack if settings.pack is None else Pack(settings.pack)
        self._protocol = Protocol.load(settings.protocol)
        self._protocol.choose(self._pack.members)
        targets = settings.targets or tuple(target.name for target in self._protocol.targets)
        self._targets = [self._protocol.target(name).name for name in targets]

    def to_choose_by(self) -> tuple[set[str], str]:
        """The metrics of ``measure`` of which higher is better, and their names in short."""
        metrics = [metric for metric in _METRICS if metric not in LOWER_IS_BETTER]
        pairs = itertools.product(metrics, self._evaluators)
        means = {f"validation/{metric}/{evaluator}" for metric, evaluator in pairs}
        of_targets = {f"{name}/{target}" for name in means for target in self._targets}
        short = (
            "auroc, validation/METRIC/EVALUATOR, validation/METRIC/EVALUATOR/TARGET (METRIC: "
            f"{', '.join(metrics)}; EVALUATOR: {', '.join(self._evaluators)}; TARGET: "
            f"{', '.join(self._targets)})"
        )
        return {"auroc", *means, *of_targets}, short

    @exact_float32()
    def measure(self, network: ReSeND | Classifier) -> dict[str, float]:
        """The metrics of ``network``, by the names under which they are logged; all processes call
        it.

        ``auroc`` is the first evaluator's, the mean over the targets.
        ``validation/METRIC/EVALUATOR`` is such a mean as well, and
        ``validation/METRIC/EVALUATOR/TARGET`` that of one target.

        Raises:
            ConfigError: the evaluator cannot be computed from the references (e.g. too few).
            PackError: an image is damaged, or the protocol does not fit the pack.
        """
        frozen = copy.deepcopy(network).requires_grad_(False).eval()
        assert isinstance(frozen, ReSeND)
        settings = self._config.validation
        extractor = FeatureExtractor(
            TrainedNetwork(frozen, frozen.backbone),
            self._pack,
            self._process,
            ExtractionConfig(self._config.input, settings.batch_size),
        )
        config = BenchmarkConfig(evaluators=self._evaluators, resamples=1)
        with torch.no_grad():
            try:
                result = run_benchmark(self._protocol, self._targets, extractor, config)
            except EvaluatorError as error:
                raise ConfigError(f"validation.evaluator: {error}") from error
        overall = means(result.targets)
        measured = {"auroc": overall[self._evaluators[0]]["auroc"]}
        for metric, evaluator in itertools.product(_METRICS, self._evaluators):
            name = f"validation/{metric}/{evaluator}"
            measured[name] = overall[evaluator][metric]
            for target in result.targets:
                measured[f"{name}/{target.name}"] = target.evaluators[evaluator].metrics[metric]
        return measured


def check_best(best: str, accuracies: Sequence[str], validation: Validation | None) -> None:
    """Raise ConfigError unless checkpoints can be chosen by ``best``: the run measures it, and
    higher is better. The default is accepted without validation, and chooses none.

    Args:
        best: ``checkpoint.best``.
        accuracies: those of the task, which are measured in training.
        validation: of the run, if any.
    """
    if best in accuracies or (validation is None and best == CheckpointConfig.best):
        return
    names: set[str] = set()
    short = "others need validation.protocol"
    if validation is not None:
        names, short = validation.to_choose_by()
    if best not in names:
        raise ConfigError(
            f"checkpoint.best cannot be {best}; choose from {', '.join(accuracies)}, {short}"
        )
