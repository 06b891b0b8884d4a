"""Scores a protocol's targets with the requested evaluators."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from evaluation.bfloat16 import logit_error
from evaluation.config import RESAMPLES, ClassifierOptions, ReferenceConfig
from evaluation.extractor import Extraction, FeatureExtractor
from evaluation.features import Features
from evaluation.progress import Progress
from evaluation.protocol import Protocol, ProtocolRows, Target
from evaluation.references import choose_references
from evaluation.results import EvaluatorResult, TargetResult, measure
from model.classifier import train_classifier
from model.config import EvaluatorOptions
from model.evaluators import References, evaluate, num_pairs
from pipelines.pack import Pack
from runtime.errors import PackError
from runtime.gather import all_gather, chunk_of


@dataclass(frozen=True)
class BenchmarkConfig:
    """How a protocol is evaluated.

    Attributes:
        evaluators: names of ``model.evaluators.EVALUATORS``.
        options: their parameters.
        references: which references are used.
        classifier: which classifier is trained on the references.
        resamples: bootstrap resamples of the AUROC's interval.
    """

    evaluators: tuple[str, ...]
    options: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    references: ReferenceConfig = field(default_factory=ReferenceConfig)
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class BenchmarkResult:
    """The results of a protocol.

    Attributes:
        protocol: what was evaluated.
        pack: the images it was evaluated on.
        extraction: the features of all those images.
        targets: in the order they were asked for.
        logit_error: error due to a lower precision, in standard deviations of the logits.
    """

    protocol: Protocol
    pack: Pack
    extraction: Extraction
    targets: list[TargetResult]
    logit_error: float


def run_benchmark(
    protocol: Protocol, targets: Sequence[str], extractor: FeatureExtractor, config: BenchmarkConfig
) -> BenchmarkResult:
    """Evaluate the named targets; every process returns the same result.

    Raises:
        PackError: the pack does not hold what the protocol names, an image is damaged, or a target
            has no known or no unknown test image.
        EvaluatorError: an evaluator cannot be computed from these references (e.g. too few).
    """
    chosen = {
        name: _target_rows(protocol, name, extractor.pack, config.references) for name in targets
    }
    everything = [rows for part in chosen.values() for rows in (part.reference, part.test)]
    rows = np.unique(np.concatenate(everything))
    error = 0.0 if extractor.config.precision == "float32" else logit_error(extractor, rows)
    extraction = extractor.extract(rows)
    results = [
        _run_target(protocol.target(name), part, extraction.features, extractor, config)
        for name, part in chosen.items()
    ]
    return BenchmarkResult(protocol, extractor.pack, extraction, results, error)


def _target_rows(
    protocol: Protocol, name: str, pack: Pack, config: ReferenceConfig
) -> ProtocolRows:
    rows = protocol.rows(pack, protocol.target(name))
    where = f"protocol {protocol.name}, target {name}"
    for what, absent in (("known", rows.test_class < 0), ("unknown", rows.test_class >= 0)):
        if absent.all():
            raise PackError(
                f"{where}: the test set has no {what} image, so there is no AUROC; "
                "change the target's test selections or the known classes"
            )
    try:
        return choose_references(rows, config)
    except PackError as error:
        raise PackError(f"{where}: {error}") from error


def _run_target(
    target: Target,
    rows: ProtocolRows,
    features: Features,
    extractor: FeatureExtractor,
    config: BenchmarkConfig,
) -> TargetResult:
    """Score this process's share of the tests, gather all scores and measure them."""
    started = time.perf_counter()
    process = extractor.process
    classes = torch.from_numpy(rows.reference_class).to(process.device)
    references = References(features.of(rows.reference), classes, int(classes.max()) + 1)
    options = _with_classifier(config, references)
    chunk = chunk_of(len(rows.test), process)
    pairs = num_pairs(config.evaluators, references, len(rows.test), options)
    with Progress(target.name, pairs // process.world_size, "pair", process) as progress:
        scores = evaluate(
            config.evaluators,
            extractor.network.network.relation,
            references,
            features.of(rows.test[chunk.slice]),
            options,
            progress=progress.add,
        )
    results: dict[str, EvaluatorResult] = {}
    for evaluator, of_own in scores.items():
        normality = all_gather(of_own.normality, chunk, process).cpu().numpy()
        predicted = all_gather(of_own.predicted, chunk, process).cpu().numpy()
        results[evaluator] = measure(
            rows.test_class, normality, predicted, resamples=config.resamples
        )
    seconds = time.perf_counter() - started
    return TargetResult(target.name, target.setting, rows, results, seconds, pairs)


def _with_classifier(config: BenchmarkConfig, references: References) -> EvaluatorOptions:
    """The evaluators' options, with a classifier of the references if one is asked for."""
    if config.classifier.classifier is None:
        return config.options
    trained = train_classifier(
        references.features, references.classes, references.num_classes, config.classifier.budget
    )
    return replace(config.options, classifier=trained)
