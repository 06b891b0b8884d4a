"""Evaluates published settings on the packs, runs and backbones that there are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.cache import FeatureCache
from evaluation.config import BATCH_SIZE, NetworkOptions
from evaluation.detectors.commands import only_process
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.networks import NamedNetwork, load_networks, unique_names
from evaluation.report.reproduced import check_out, print_tables, write_tables
from evaluation.report.text import plain
from evaluation.reproduction.options import ReproduceConfig
from evaluation.reproduction.published import (
    PublishedNetwork,
    PublishedResult,
    PublishedTable,
    PublishedTarget,
    load_published,
)
from evaluation.reproduction.reproduced import ReproducedRow
from model.config import EvaluatorOptions, PreprocessingOptions
from model.errors import EvaluatorError
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.distributed import Process
from runtime.errors import ConfigError, UserError, first_line
from runtime.precision import exact_float32
from sharding.format.manifest import FILE_NAME, Manifest

Metrics = Mapping[str, Mapping[str, float]]  # by evaluator and name


@exact_float32()
def reproduce(options: ReproduceConfig) -> int:
    """Evaluate what can be, then print and write the tables; 1 where an evaluation failed.

    Raises:
        UserError: the published results, a pack's manifest, a network or ``options.out`` cannot be
            used.
    """
    tables = load_published(options.published)
    check_out(options.out, options.overwrite)
    packs = _packs(options.packs)
    FeatureCache(options.cache, backbone="").prepare()
    with only_process(options) as process:
        networks = _networks(options, process)
        for network in networks:
            print(plain(network.origin))
        reproduction = _Reproduction(options, process, packs, networks)
        rows = [row for table in tables for row in reproduction.rows(table)]
    datasets = {target.protocol.dataset for table in tables for target in table.targets}
    missing = sorted(datasets - packs.keys())
    commands = [_pack_command(dataset, options.packs) for dataset in missing]
    print_tables(rows, commands)
    write_tables(options.out, rows, commands)
    return int(any(row.failed for row in rows))


def _packs(folder: Path) -> dict[str, Path]:
    """The packs in ``folder``, by data set."""
    packs: dict[str, Path] = {}
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; give that of the packs as --packs")
    for path in sorted(manifest.parent for manifest in folder.glob(f"*/{FILE_NAME}")):
        dataset = Manifest.load(path).dataset
        if dataset in packs:
            raise ConfigError(
                f"{packs[dataset]} and {path} are both packs of {dataset}; move one of them out of "
                f"{folder}"
            )
        packs[dataset] = path
    return packs


def _pack_command(dataset: str, folder: Path) -> str:
    return f"python -m sharding pack {dataset} --root TREE --out {folder / dataset}"


def _networks(options: ReproduceConfig, process: Process) -> list[NamedNetwork]:
    """The runs and then the backbones, each with another name."""
    given = [NetworkOptions(checkpoint=options.runs)] if options.runs else []
    given += [_backbone_options(backbone) for backbone in options.backbones or ()]
    networks = [
        network
        for of_kind in given
        for network in load_networks(of_kind, PreprocessingOptions(), process.device)
    ]
    names = unique_names([(network.name, network.name) for network in networks])
    return [replace(network, name=name) for name, network in zip(names, networks, strict=True)]


def _backbone_options(text: str) -> NetworkOptions:
    """Those of ``NAME`` or ``NAME=FILE``."""
    name, equals, file = text.partition("=")
    return NetworkOptions(backbone=(name,), weights=(Path(file),) if equals else None)


def _is(network: NamedNetwork, published: PublishedNetwork) -> bool:
    """Whether ``network`` is one that has been published, as far as its description tells."""
    found = network.provenance
    if published.backbone is not None:
        return network.is_bare and not found.config and found.backbone == published.backbone
    return not network.is_bare and published.is_run_with(found.config)


@dataclass(frozen=True)
class _Reproduction:
    """What is evaluated, on which packs."""

    options: ReproduceConfig
    process: Process
    packs: Mapping[str, Path]
    networks: Sequence[NamedNetwork]

    def rows(self, table: PublishedTable) -> Iterator[ReproducedRow]:
        for target in table.targets:
            yield from self._target_rows(table, target)

    def _target_rows(self, table: PublishedTable, target: PublishedTarget) -> list[ReproducedRow]:
        """The rows of the networks at hand, then those of published networks that are missing."""
        place = (table.name, target.name)
        rows: list[ReproducedRow] = []
        if (path := self.packs.get(target.protocol.dataset)) is None:
            missing = f"no pack of {target.protocol.dataset}"
        else:
            missing, pack = "no such network given", Pack(path)
            for network in self.networks:
                rows += self._network_rows(table, target, network, pack)
        compared = [row.published for row in rows]
        rows += [
            ReproducedRow(*place, result.network.name, result.evaluator, result, note=missing)
            for result in target.results
            if result not in compared
        ]
        return rows or [ReproducedRow(*place, note=missing)]

    def _network_rows(
        self, table: PublishedTable, target: PublishedTarget, network: NamedNetwork, pack: Pack
    ) -> Iterator[ReproducedRow]:
        """A row per evaluator and published result of this network; one where there is none."""
        setting = table.setting
        evaluators = setting.backbones if network.is_bare else setting.runs
        if not evaluators:
            return
        print(plain(f"{table.name}, {target.name}: {network.name}"))
        measured: Metrics = {}
        failure = ""
        try:
            measured = self._measure(table, target, network, pack)
        except (UserError, EvaluatorError) as error:
            failure = first_line(error)
        for evaluator in evaluators:
            matching: list[PublishedResult | None] = [
                result
                for result in target.results
                if result.evaluator == evaluator and _is(network, result.network)
            ]
            for result in matching or [None]:
                yield ReproducedRow(
                    *(table.name, target.name, network.name, evaluator),
                    published=result,
                    measured=measured.get(evaluator),
                    note=failure,
                    failed=bool(failure),
                )

    def _measure(
        self, table: PublishedTable, target: PublishedTarget, network: NamedNetwork, pack: Pack
    ) -> Metrics:
        options, setting = self.options, table.setting
        extraction = ExtractionConfig(
            InputConfig(device=options.device),
            options.batch_size or BATCH_SIZE[self.process.device.type],
        )
        cache = FeatureCache(options.cache, network.provenance.backbone_sha256)
        extractor = FeatureExtractor(network.trained, pack, self.process, extraction, cache)
        config = BenchmarkConfig(
            setting.backbones if network.is_bare else setting.runs,
            EvaluatorOptions(neighbors=setting.neighbors),
            setting.references,
            setting.classifier,
        )
        result = run_benchmark(target.protocol, [target.target], extractor, config)
        return result.targets[0].metrics()
