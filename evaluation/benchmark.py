"""Scores a protocol's targets with the requested evaluators."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch

from evaluation.bfloat16 import logit_error
from evaluation.classifier import EvaluatorInput, with_classifier
from evaluation.config import RESAMPLES, ClassifierOptions, ReferenceConfig
from evaluation.extractor import Extraction, FeatureExtractor
from evaluation.features import Features
from evaluation.progress import Progress
from evaluation.protocol import Protocol, ProtocolRows, Target
from evaluation.references import choose_references
from evaluation.results import EvaluatorResult, TargetResult, measure
from model.config import NEED_CLASSIFIER, EvaluatorOptions
from model.evaluators import References, Scores, evaluate, num_pairs
from model.intermediates import check_top
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
        targets: in the order they were asked for, each once per draw of few-shot references.
        logit_error: error due to a lower precision, in standard deviations of the logits.
        network: what the network is called among those evaluated; empty where it has no name.
    """

    protocol: Protocol
    pack: Pack
    extraction: Extraction
    targets: list[TargetResult]
    logit_error: float
    network: str = ""


def by_protocol(results: Sequence[BenchmarkResult]) -> list[list[BenchmarkResult]]:
    """Consecutive results of one protocol together: those of the networks evaluated on it."""
    return [list(group) for _, group in groupby(results, lambda result: id(result.protocol))]


def run_benchmark(
    protocol: Protocol, targets: Sequence[str], extractor: FeatureExtractor, config: BenchmarkConfig
) -> BenchmarkResult:
    """Evaluate the named targets; every process returns the same result.

    Raises:
        PackError: the pack does not hold what the protocol names, an image is damaged, or a target
            has no known or no unknown test image.
        EvaluatorError: an evaluator cannot be computed from these references (e.g. too few).
        ConfigError: see ``evaluation.classifier.with_classifier``.
    """
    chosen = [
        draw
        for name in targets
        for draw in draws(protocol, protocol.target(name), extractor.pack, config.references)
    ]
    for _, part in chosen:
        check_top(config.options.top, int(part.reference_class.max()) + 1)
    everything = [rows for _, part in chosen for rows in (part.reference, part.test)]
    rows = np.unique(np.concatenate(everything))
    error = 0.0 if extractor.config.precision == "float32" else logit_error(extractor, rows)
    extraction = extractor.extract(rows)
    results = [
        _run_target(target, part, extraction.features, extractor, config) for target, part in chosen
    ]
    return BenchmarkResult(protocol, extractor.pack, extraction, results, error)


def draws(
    protocol: Protocol, target: Target, pack: Pack, config: ReferenceConfig
) -> list[tuple[Target, ProtocolRows]]:
    """The target with its samples; with several seeds, a repetition of it for each."""
    rows = protocol.rows(pack, target)
    where = f"protocol {protocol.name}, target {target.name}"
    for what, absent in (("known", rows.test_class < 0), ("unknown", rows.test_class >= 0)):
        if absent.all():
            raise PackError(
                f"{where}: the test set has no {what} image, so there is no AUROC; "
                "change the target's test selections or the known classes"
            )
    try:
        drawn = [choose_references(rows, config, seed) for seed in config.seed]
    except PackError as error:
        raise PackError(f"{where}: {error}") from error
    if len(drawn) == 1:
        return [(target, drawn[0])]
    setting = target.setting or f"{target.name}, {len(drawn)} draws"
    return [
        (replace(target, name=f"{target.name}, seed {seed}", setting=setting), part)
        for seed, part in zip(config.seed, drawn, strict=True)
    ]


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
    chunk = chunk_of(len(rows.test), process)
    own_tests = rows.test[chunk.slice]
    given = EvaluatorInput(references, features.of(own_tests), config.options)
    groups = list(_groups(given, rows, own_tests, extractor, config))
    at_most = num_pairs(config.evaluators, classes, len(own_tests), config.options)
    relation, scores = extractor.network.network.relation, dict[str, Scores]()
    with Progress(target.name, at_most, "pair", process) as progress:
        for names, compared in groups:
            scores |= evaluate(names, relation, *compared, progress=progress.add)
    pairs = int(process.sum_(torch.tensor(progress.done, device=process.device)))
    results: dict[str, EvaluatorResult] = {}
    for evaluator in config.evaluators:
        of_own = scores[evaluator]
        normality = all_gather(of_own.normality, chunk, process).cpu().numpy()
        predicted = all_gather(of_own.predicted, chunk, process).cpu().numpy()
        results[evaluator] = measure(
            rows.test_class,
            normality,
            predicted,
            groups=rows.groups,
            resamples=config.resamples,
        )
    seconds = time.perf_counter() - started
    return TargetResult(target.name, target.setting, rows, results, seconds, pairs)


def _groups(
    given: EvaluatorInput,
    rows: ProtocolRows,
    own_tests: np.ndarray,
    extractor: FeatureExtractor,
    config: BenchmarkConfig,
) -> Iterator[tuple[list[str], EvaluatorInput]]:
    """The evaluators with what they compare. Those that read a fine-tuned backbone's classifier
    compare the features of that backbone; all others share the features that there are."""
    by_classifier = [name for name in config.evaluators if name in NEED_CLASSIFIER]
    others = [name for name in config.evaluators if name not in NEED_CLASSIFIER]
    if not by_classifier:
        yield others, given
        return
    trained = with_classifier(given, rows, own_tests, extractor, config.classifier, by_classifier)
    if config.classifier.classifier == "head":
        yield [*others, *by_classifier], trained
        return
    if others:
        yield others, given
    yield by_classifier, trained
