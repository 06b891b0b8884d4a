"""An evaluation, from the command's options to the folder of results."""

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from evaluation.benchmark import BenchmarkResult, by_protocol
from evaluation.cache import FeatureCache
from evaluation.comparison import Comparison, compare
from evaluation.config import CovarianceOptions, EvaluateConfig
from evaluation.cost import affordable
from evaluation.evaluator_choice import check_classifier
from evaluation.ooddb import PREFIX, ooddb_protocol
from evaluation.protocol import Protocol
from evaluation.receipt import Receipt
from evaluation.report.comparisons import terminal_comparisons
from evaluation.report.folder import ResultsFolder, reserve
from evaluation.report.table import terminal_table
from evaluation.report.text import plain
from evaluation.subject import Job, Subject, load_subjects
from evaluation.training_images import TrainingImages
from model.config import RELATIONAL, WHITENED_COSINE
from model.errors import EvaluatorError
from pipelines.pack import Pack
from pipelines.packs import joined
from pipelines.selection import Selection
from runtime.distributed import Process
from runtime.errors import ConfigError, UserError
from runtime.precision import exact_float32
from sharding.remote.url import without_credentials
from sharding.staging import local_pack


@exact_float32()
def evaluate(options: EvaluateConfig, process: Process, command: list[str]) -> None:
    """Evaluate what ``options`` name and write the results; ``command`` goes into the receipt.

    Raises:
        UserError: a pack, a protocol, a checkpoint or a folder cannot be used, or an evaluator
            cannot be computed from the references.
    """
    started = time.perf_counter()
    check_classifier(options.evaluators or (), options.classifier)
    jobs = _jobs(options, process)
    training_images = _training_images(options, jobs, process)
    subjects = load_subjects(options, jobs[0].pack, process)
    with _folder(options, subjects[0].extractor.cache, process) as folder:
        if process.is_first:
            _introduce(subjects, options)
        subjects = [_affordable(subject, jobs, options, process) for subject in subjects]
        subjects = [subject.learning_from(training_images) for subject in subjects]
        results = [subject.run(job) for job in jobs for subject in subjects]
        if folder is None:
            return
        comparisons = compare(results, options.resamples)
        receipt = Receipt(
            shlex.join(map(without_credentials, command)),
            [subject.network for subject in subjects],
            _without_credentials(options),
            process,
            time.perf_counter() - started,
        )
        try:
            folder.write(results, comparisons, receipt)
        finally:  # a full disk costs the files, not the numbers
            _print_tables(results, comparisons)
    print(f"results in {plain(str(options.out))}")


def _without_credentials(options: EvaluateConfig) -> EvaluateConfig:
    covariance_pack = options.covariance_pack and without_credentials(options.covariance_pack)
    packs = tuple(map(without_credentials, options.pack))
    return replace(options, pack=packs, covariance_pack=covariance_pack)


def _jobs(options: EvaluateConfig, process: Process) -> list[Job]:
    """The protocols, each with the packs of its data sets, joined if there are several."""
    protocols = _protocols(options)
    packs = [_pack(pack, options, process) for pack in options.pack]
    jobs = []
    for protocol in protocols:
        if options.leave_out_rejected:
            protocol = replace(protocol, leave_out_rejected=True)
        targets = [target.name for target in protocol.targets]
        if options.target != "all":
            targets = [protocol.target(options.target).name]
        jobs.append(Job(protocol, targets, joined(protocol.choose(packs))))
    return jobs


def _protocols(options: EvaluateConfig) -> list[Protocol]:
    """What ``--protocol`` names; ConfigError if two have the same name, by which results go."""
    protocols: dict[str, Protocol] = {}
    for given in options.protocol:
        protocol = load_protocol(given, options.lists)
        if protocol.name in protocols:
            raise ConfigError(
                f"{given} is the second protocol named {protocol.name}; evaluate them one at a "
                "time, or change the name in its YAML"
            )
        protocols[protocol.name] = protocol
    return list(protocols.values())


def _pack(pack: str, options: EvaluateConfig, process: Process) -> Pack:
    """The pack in a folder, or the local copy of the one at a URL."""
    return Pack(process.run_long(partial(local_pack, pack, options.pack_cache, "--pack-cache")))


def load_protocol(name: str, lists: Path | None) -> Protocol:
    """The protocol of a YAML file or of OODDB; ``lists`` is the folder of its lists.

    Raises:
        ConfigError: see ``Protocol.load`` and ``ooddb_protocol``.
    """
    return ooddb_protocol(name, lists) if name.startswith(PREFIX) else Protocol.load(name, lists)


def _affordable(
    subject: Subject, jobs: Sequence[Job], options: EvaluateConfig, process: Process
) -> Subject:
    try:
        return affordable(subject, jobs, options.evaluators or (), process)
    except EvaluatorError as error:
        raise ConfigError(str(error)) from error


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


def _introduce(subjects: Sequence[Subject], options: EvaluateConfig) -> None:
    """Say what was read, what is unusual about it, and what is not computed for it."""
    for network in (subject.network for subject in subjects):
        found = network.provenance
        print(plain(network.origin))
        if found.untrained:
            print(f"warning: untrained, with random weights: {' and '.join(found.untrained)}")
        left_out = [name for name in options.evaluators or () if name in RELATIONAL]
        if network.is_bare and left_out:
            print(
                f"note: {plain(network.name)} has no relational module: {', '.join(left_out)} "
                "left out"
            )


def _training_images(
    options: EvaluateConfig, jobs: Sequence[Job], process: Process
) -> TrainingImages | None:
    """The images that the options name; ConfigError where one of them is a test of a job."""
    given = options.part(CovarianceOptions)
    selection = Selection(
        given.covariance_domains, given.covariance_classes, given.covariance_splits
    )
    if given.covariance_pack is None:
        if selection != Selection():
            raise ConfigError("a selection of training images needs their --covariance-pack")
        return None
    if not {WHITENED_COSINE, "all"} & {*(options.evaluators or ())}:
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


def _print_tables(results: Sequence[BenchmarkResult], comparisons: Sequence[Comparison]) -> None:
    console = Console()
    with console.capture() as captured:  # printed by us: rich exits when a pipe is closed
        for networks in by_protocol(results):
            console.print(terminal_table(networks))
            name = networks[0].protocol.name
            if of_protocol := [item for item in comparisons if item.benchmark == name]:
                console.print(terminal_comparisons(of_protocol))
    print(captured.get(), end="")
    for networks in by_protocol(results):
        for target in networks[0].targets:
            if missing := target.rows.left_out:
                print(
                    f"note: {plain(networks[0].protocol.name)}, {plain(target.name)}: {missing} "
                    "listed images, rejected by packing, are left out"
                )
