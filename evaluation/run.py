"""An evaluation, from the command's options to the files with its results."""

import argparse
import importlib.metadata
import platform
import shlex
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from nvidia import dali
from rich.console import Console

from evaluation.benchmark import BenchmarkConfig, BenchmarkResult, run_benchmark
from evaluation.cache import FeatureCache
from evaluation.protocol import Protocol
from evaluation.references import ReferenceConfig
from evaluation.report import files as outputs
from evaluation.report.page import write_report
from evaluation.report.table import terminal_table
from evaluation.trained import Trained, load_network
from model.config import EVALUATORS, PreprocessingOptions
from model.errors import EvaluatorError
from model.evaluators import EvaluatorOptions, check_names
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError, PackError
from runtime.precision import exact_float32

_BATCH_SIZE = {"cpu": 8, "cuda": 256}  # larger ones leave a CPU's caches


@exact_float32()
def evaluate(options: argparse.Namespace, process: Process, command: list[str]) -> None:
    """Evaluate what ``options`` name and write the results; ``command`` goes into the receipt.

    Raises:
        UserError: a pack, a protocol or a checkpoint cannot be used, or an evaluator cannot be
            computed from the references.
    """
    started = time.perf_counter()
    jobs = _jobs(options)
    trained = load_network(options.checkpoint, process.device, _preprocessing(options))
    if process.is_first and not trained.verified:
        print(f"{trained.path} has no checksums to verify")
    config = _benchmark_config(options, process)
    cache = None if options.no_cache else FeatureCache(options.cache)
    results = []
    for protocol, targets, pack in jobs:
        try:
            results.append(run_benchmark(protocol, targets, pack, trained, process, config, cache))
        except EvaluatorError as error:
            raise ConfigError(f"protocol {protocol.name}: {error}") from error
    if process.is_first:
        seconds = time.perf_counter() - started
        _write(options, results, _receipt(options, trained, process, command, seconds))
        _print(results, options.out)


def _jobs(options: argparse.Namespace) -> list[tuple[Protocol, list[str], Pack]]:
    """Each protocol with the targets to run and the pack that holds its data set."""
    packs = [Pack(path) for path in options.pack]
    jobs = []
    for path in options.config:
        protocol = Protocol.load(path)
        fitting = [pack for pack in packs if pack.manifest.dataset == protocol.dataset]
        if len(packs) > 1 and len(fitting) != 1:
            have = ", ".join(f"{pack.path} ({pack.manifest.dataset})" for pack in packs)
            raise PackError(
                f"protocol {protocol.name} wants a pack of {protocol.dataset}, "
                f"{len(fitting)} of the given are: {have}; give one --pack for each data set"
            )
        pack = fitting[0] if len(packs) > 1 else packs[0]
        wanted = [target.name for target in protocol.targets]
        if options.target != "all":
            wanted = [protocol.target(options.target).name]
        jobs.append((protocol, wanted, pack))
    return jobs


def _preprocessing(options: argparse.Namespace) -> PreprocessingOptions:
    given = {field.name: getattr(options, field.name) for field in fields(PreprocessingOptions)}
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    try:
        return PreprocessingOptions(**values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _benchmark_config(options: argparse.Namespace, process: Process) -> BenchmarkConfig:
    names = EVALUATORS if options.evaluators == ["all"] else tuple(options.evaluators)
    try:
        check_names(names)
        return BenchmarkConfig(
            evaluators=names,
            options=EvaluatorOptions(
                significant=options.significant,
                neighbours=options.neighbours,
                memory=options.memory << 20 if options.memory else None,
                dtype=getattr(torch, options.precision),
            ),
            references=ReferenceConfig(
                options.shots, options.seed, options.with_replacement, options.min_references
            ),
            input=InputConfig(device=options.device),
            batch_size=options.batch_size or _BATCH_SIZE[process.device.type],
            resamples=options.resamples,
        )
    except EvaluatorError as error:
        raise ConfigError(str(error)) from error


def _receipt(
    options: argparse.Namespace,
    trained: Trained,
    process: Process,
    command: list[str],
    seconds: float,
) -> dict[str, Any]:
    """What the results come from, for ``results.json`` and the report."""
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "timm", "scikit-learn")
    }
    versions["nvidia-dali"] = dali.__version__
    return {
        "command": shlex.join(command),
        "checkpoint": {
            "path": str(trained.path),
            "step": trained.step,
            "sha256": trained.sha256,
        },
        "configuration": {
            name: [str(item) for item in value] if isinstance(value, list) else _scalar(value)
            for name, value in vars(options).items()
        },
        "training": trained.config,
        "preprocessing": asdict(trained.network.preprocessing),
        "device": str(process.device),
        "processes": process.world_size,
        "python": platform.python_version(),
        "versions": versions,
        "seconds": round(seconds, 3),
    }


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _write(
    options: argparse.Namespace, results: list[BenchmarkResult], receipt: dict[str, Any]
) -> None:
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        outputs.write_json(options.out / "results.json", results, receipt)
        outputs.write_csv(options.out / "results.csv", results)
        outputs.write_markdown(options.out / "results.md", results)
        outputs.write_scores(options.out / "scores.parquet", results)
        write_report(options.out / "report.html", results, receipt)
    except OSError as error:
        raise ConfigError(
            f"cannot write the results to {options.out}: {error.strerror}; choose another --out"
        ) from error


def _print(results: list[BenchmarkResult], out: Path) -> None:
    console = Console()
    for result in results:
        console.print(terminal_table(result))
    console.print(f"results in {out}", soft_wrap=True, highlight=False)
