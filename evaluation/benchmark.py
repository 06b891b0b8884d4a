"""A benchmark's targets scored by every evaluator that was asked for."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from evaluation.bfloat16 import logit_error
from evaluation.cache import FeatureCache
from evaluation.features import Features, extract
from evaluation.protocol import Protocol, ProtocolRows
from evaluation.references import ReferenceConfig, choose_references
from evaluation.results import EvaluatorResult, TargetResult, measure
from evaluation.trained import Trained
from model.evaluators import EvaluatorOptions, References, evaluate, num_pairs
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import PackError
from runtime.gather import Share, share_of, together


@dataclass(frozen=True)
class BenchmarkConfig:
    """How a benchmark is run.

    Attributes:
        evaluators: names of ``model.evaluators.EVALUATORS``.
        options: their numbers.
        references: which references are used.
        input: how images are decoded.
        batch_size: images a batch and a process through the backbone.
        resamples: of the bootstrap.
    """

    evaluators: tuple[str, ...]
    options: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    references: ReferenceConfig = field(default_factory=ReferenceConfig)
    input: InputConfig = field(default_factory=InputConfig)
    batch_size: int = 32
    resamples: int = 1000


@dataclass(frozen=True)
class BenchmarkResult:
    """A benchmark that was run.

    Attributes:
        protocol: what was run.
        pack: on which images.
        features: of all images in it.
        targets: in the protocol's order.
        seconds: what extracting the features took.
        logit_error: what a lower precision changes, in standard deviations of the logits.
    """

    protocol: Protocol
    pack: Pack
    features: Features
    targets: list[TargetResult]
    seconds: float
    logit_error: float


def run_benchmark(
    protocol: Protocol,
    targets: Sequence[str],
    pack: Pack,
    trained: Trained,
    process: Process,
    config: BenchmarkConfig,
    cache: FeatureCache | None,
) -> BenchmarkResult:
    """Run the named targets; every process returns the same.

    Raises:
        PackError: the pack does not hold what the protocol names, or a target has no known or no
            unknown test image.
        EvaluatorError: an evaluator cannot be computed from these references.
    """
    chosen = {name: _target_rows(protocol, name, pack, config.references) for name in targets}
    everything = [rows for part in chosen.values() for rows in (part.reference, part.test)]
    rows = np.unique(np.concatenate(everything))
    error = 0.0
    if config.options.dtype != torch.float32:
        error = logit_error(trained, pack, rows, process, config.input, config.options.dtype)
    started = time.perf_counter()
    features = extract(
        trained,
        pack,
        rows,
        process,
        config.input,
        batch_size=config.batch_size,
        precision=config.options.dtype,
        cache=cache,
    )
    seconds = time.perf_counter() - started
    results = [
        _run_target(name, part, len(protocol.known), features, pack, trained, process, config)
        for name, part in chosen.items()
    ]
    return BenchmarkResult(protocol, pack, features, results, seconds, error)


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
        return choose_references(rows, protocol.known, config)
    except PackError as error:
        raise PackError(f"{where}: {error}") from error


def _run_target(
    name: str,
    rows: ProtocolRows,
    num_classes: int,
    features: Features,
    pack: Pack,
    trained: Trained,
    process: Process,
    config: BenchmarkConfig,
) -> TargetResult:
    started = time.perf_counter()
    device = features.values.device
    references = References(
        features.of(rows.reference), torch.from_numpy(rows.reference_class).to(device), num_classes
    )
    share = share_of(len(rows.test), process)
    own = features.of(rows.test[share.slice])
    pairs = num_pairs(config.evaluators, references, len(rows.test), config.options)
    quiet = not (process.is_first and sys.stderr.isatty())
    with tqdm(
        total=pairs // process.world_size, desc=name, unit="pair", unit_scale=True, disable=quiet
    ) as bar:
        scores = evaluate(
            config.evaluators,
            trained.network.relation,
            references,
            own,
            config.options,
            progress=bar.update,
        )
    _check_keys(pack, rows.test, share, process)
    results: dict[str, EvaluatorResult] = {}
    for evaluator, of_own in scores.items():
        normality = together(of_own.normality, share, process).cpu().numpy()
        predicted = together(of_own.predicted, share, process).cpu().numpy()
        results[evaluator] = measure(
            rows.test_class, normality, predicted, resamples=config.resamples
        )
    seconds = time.perf_counter() - started
    return TargetResult(
        name=name,
        reference=rows.reference,
        reference_class=rows.reference_class,
        test=rows.test,
        test_class=rows.test_class,
        evaluators=results,
        seconds=seconds,
        pairs=pairs,
    )


def _check_keys(pack: Pack, test: np.ndarray, share: Share, process: Process) -> None:
    """RuntimeError unless the samples scored by all processes are the protocol's, each once."""
    own = torch.from_numpy(test[share.slice].copy()).to(process.device)
    scored = pack.keys(together(own, share, process).cpu().numpy())
    expected = pack.keys(test)
    if len(set(scored)) != len(scored) or set(scored) != set(expected):
        raise RuntimeError(
            f"{len(set(expected) - set(scored))} of {len(expected)} test images were not scored; "
            "nothing is reported"
        )
