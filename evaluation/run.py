"""An evaluation, from the command's options to the folder of results."""

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from evaluation.benchmark import BenchmarkConfig, BenchmarkResult, run_benchmark
from evaluation.cache import FeatureCache
from evaluation.config import (
    BATCH_SIZE,
    ClassifierOptions,
    CovarianceOptions,
    EvaluateConfig,
    ReferenceConfig,
)
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.ooddb import PREFIX, ooddb_protocol
from evaluation.protocol import Protocol
from evaluation.receipt import Receipt
from evaluation.report.folder import ResultsFolder, reserve
from evaluation.report.table import terminal_table
from evaluation.report.text import plain
from evaluation.trained import Provenance, TrainedNetwork, build_trained, read_checkpoint
from evaluation.training_images import TrainingImages
from model.config import (
    EVALUATORS,
    NEED_CLASSIFIER,
    WHITENED_COSINE,
    WITH_IMAGES,
    EvaluatorOptions,
    PreprocessingOptions,
)
from model.errors import EvaluatorError
from model.whitening import Whitening
from pipelines.config import InputConfig
from pipelines.pack import Pack
from pipelines.packs import joined
from pipelines.selection import Selection
from runtime.distributed import Process
from runtime.errors import ConfigError, UserError
from runtime.precision import exact_float32
from sharding.remote.url import without_credentials
from sharding.staging import local_pack

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A protocol, those of its targets to evaluate, and the pack of its data set, or data sets."""

    protocol: Protocol
    targets: Sequence[str]
    pack: Pack


@exact_float32()
def evaluate(options: EvaluateConfig, process: Process, command: list[str]) -> None:
    """Evaluate what ``options`` name and write the results; ``command`` goes into the receipt.

    Raises:
        UserError: a pack, a protocol, a checkpoint or a folder cannot be used, or an evaluator
            cannot be computed from the references.
    """
    started = time.perf_counter()
    _check_classifier(options)
    jobs = _jobs(options, process)
    training_images = _training_images(options, jobs, process)
    checkpoint = read_checkpoint(options.checkpoint)
    network = build_trained(checkpoint, process.device, _part(options, PreprocessingOptions))
    evaluators = _evaluators(options, network)
    provenance = Provenance.of(checkpoint)
    cache = None if options.no_cache else FeatureCache(options.cache, provenance.backbone_sha256)
    extractor = FeatureExtractor(
        network, jobs[0].pack, process, _extraction(options, process), cache
    )
    with _folder(options, cache, process) as folder:
        if process.is_first:
            _introduce(provenance)
        whitening = None if training_images is None else training_images.whitening(extractor)
        config = _benchmark_config(options, evaluators, whitening)
        results = [_run(job, extractor, config) for job in jobs]
        if folder is None:
            return
        seconds = time.perf_counter() - started
        receipt = Receipt(
            shlex.join(map(without_credentials, command)),
            provenance,
            network.network.preprocessing,
            _without_credentials(options),
            process,
            seconds,
        )
        try:
            folder.write(results, receipt)
        finally:  # a full disk costs the files, not the numbers
            _print_tables(results)
    print(f"results in {plain(str(options.out))}")


def _without_credentials(options: EvaluateConfig) -> EvaluateConfig:
    covariance_pack = options.covariance_pack and without_credentials(options.covariance_pack)
    packs = tuple(map(without_credentials, options.pack))
    return replace(options, pack=packs, covariance_pack=covariance_pack)


def _jobs(options: EvaluateConfig, process: Process) -> list[Job]:
    """The protocols, each with the packs of its data sets, joined if there are several."""
    packs = [_pack(pack, options, process) for pack in options.pack]
    jobs = []
    for name in options.protocol:
        protocol = load_protocol(name, options.lists)
        if options.leave_out_rejected:
            protocol = replace(protocol, leave_out_rejected=True)
        targets = [target.name for target in protocol.targets]
        if options.target != "all":
            targets = [protocol.target(options.target).name]
        jobs.append(Job(protocol, targets, joined(protocol.choose(packs))))
    return jobs


def _pack(pack: str, options: EvaluateConfig, process: Process) -> Pack:
    """The pack in a folder, or the local copy of the one at a URL."""
    return Pack(process.run_long(partial(local_pack, pack, options.pack_cache, "--pack-cache")))


def load_protocol(name: str, lists: Path | None) -> Protocol:
    """The protocol of a YAML file or of OODDB; ``lists`` is the folder of its lists.

    Raises:
        ConfigError: see ``Protocol.load`` and ``ooddb_protocol``.
    """
    return ooddb_protocol(name, lists) if name.startswith(PREFIX) else Protocol.load(name, lists)


@contextlib.contextmanager
def _folder(
    options: EvaluateConfig, cache: FeatureCache | None, process: Process
) -> Iterator[ResultsFolder | None]:
    """Reserve what will be written to, before anything is computed.

    The first process gets the folder, the others None; if it fails, all raise.
    """
    with contextlib.ExitStack() as stack:
        folder, failure = None, None
        if process.is_first:
            try:
                folder = stack.enter_context(reserve(options.out, options.overwrite))
                if cache is not None:
                    cache.prepare()
            except UserError as error:
                failure = error
        failed = process.maximum(failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise ConfigError("process 0 cannot write; see its message")
        yield folder


def _introduce(network: Provenance) -> None:
    """Say which checkpoint was read, and what is unusual about it."""
    of_step = "" if network.step is None else f" of step {network.step}"
    notes = "" if network.verified else ", which has no checksums to verify"
    print(f"checkpoint{of_step}: {plain(str(network.path))}{notes}")
    if network.untrained:
        print(f"warning: untrained, with random weights: {' and '.join(network.untrained)}")


def _training_images(
    options: EvaluateConfig, jobs: Sequence[Job], process: Process
) -> TrainingImages | None:
    """The images that the options name; ConfigError where one of them is a test of a job."""
    given = _part(options, CovarianceOptions)
    selection = Selection(
        given.covariance_domains, given.covariance_classes, given.covariance_splits
    )
    if given.covariance_pack is None:
        if selection != Selection():
            raise ConfigError("a selection of training images needs their --covariance-pack")
        return None
    if not {WHITENED_COSINE, "all"} & {*options.evaluators}:
        raise ConfigError(
            f"--covariance-pack is for {WHITENED_COSINE} alone; add it to --evaluators"
        )
    pack = _pack(given.covariance_pack, options, process)
    images = TrainingImages(pack, selection.rows(pack))
    for job in jobs:
        for target in map(job.protocol.target, job.targets):
            where = f"protocol {job.protocol.name}, target {target.name}"
            images.check_apart(job.pack, job.protocol.rows(job.pack, target).test, where)
    return images


def _check_classifier(options: EvaluateConfig) -> None:
    """Raise ConfigError where an evaluator lacks its classifier or a classifier its evaluator."""
    named = [name for name in options.evaluators if name in NEED_CLASSIFIER]
    of_images = [name for name in named if name in WITH_IMAGES]
    if of_images and options.classifier != "full":
        raise ConfigError(
            f"{of_images[0]} reads gradients or hidden layers of a classifier trained with its "
            "backbone; add --classifier full"
        )
    if named and not options.classifier:
        raise ConfigError(
            f"{named[0]} needs a classifier of the known classes; add --classifier head"
        )
    if options.classifier and not named and "all" not in options.evaluators:
        raise ConfigError(
            f"no evaluator reads the --classifier; add some of {', '.join(NEED_CLASSIFIER)} to "
            "--evaluators, or leave it out"
        )


def _evaluators(options: EvaluateConfig, network: TrainedNetwork) -> tuple[str, ...]:
    """The names of the evaluators; of all of them, those that can be computed."""
    can_whiten = options.covariance_pack or network.network.relation.whitening
    if "all" in options.evaluators:
        lacking = [] if can_whiten else [WHITENED_COSINE]
        if options.classifier != "full":
            lacking += WITH_IMAGES if options.classifier else NEED_CLASSIFIER
        return tuple(name for name in EVALUATORS if name not in lacking)
    if WHITENED_COSINE in options.evaluators and not can_whiten:
        raise ConfigError(
            f"{WHITENED_COSINE} has no covariance: the checkpoint was not trained from a whitened "
            "start; give a pack of training images as --covariance-pack"
        )
    return options.evaluators


def _extraction(options: EvaluateConfig, process: Process) -> ExtractionConfig:
    return ExtractionConfig(
        InputConfig(device=options.device),
        options.batch_size or BATCH_SIZE[process.device.type],
        options.precision,
    )


def _benchmark_config(
    options: EvaluateConfig, evaluators: tuple[str, ...], whitening: Whitening | None
) -> BenchmarkConfig:
    return BenchmarkConfig(
        evaluators=evaluators,
        options=EvaluatorOptions(
            significant=options.significant,
            neighbors=options.neighbors,
            memory=options.memory << 20 or None,
            precision=options.precision,
            whitening=whitening,
        ),
        references=_part(options, ReferenceConfig),
        classifier=_part(options, ClassifierOptions),
        resamples=options.resamples,
    )


def _run(job: Job, extractor: FeatureExtractor, config: BenchmarkConfig) -> BenchmarkResult:
    try:
        return run_benchmark(job.protocol, job.targets, replace(extractor, pack=job.pack), config)
    except EvaluatorError as error:
        raise ConfigError(f"protocol {job.protocol.name}: {error}") from error


def _part(options: EvaluateConfig, kind: type[T]) -> T:
    """The dataclass ``kind`` from the options that are its fields."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(options, name) for name in names})


def _print_tables(results: Sequence[BenchmarkResult]) -> None:
    console = Console()
    with console.capture() as captured:  # printed by us: rich exits when a pipe is closed
        for result in results:
            console.print(terminal_table(result))
    print(captured.get(), end="")
    for result in results:
        for target in result.targets:
            if missing := target.rows.left_out:
                print(
                    f"note: {plain(result.protocol.name)}, {plain(target.name)}: {missing} listed "
                    "images, rejected by packing, are left out"
                )
