"""The published results that ``python -m evaluation reproduce`` compares with; read from YAML."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.config import ClassifierOptions, ReferenceConfig
from evaluation.protocol import Protocol
from evaluation.results import METRICS
from evaluation.yaml_fields import Fields
from model.config import EVALUATORS, NEED_CLASSIFIER, WITH_IMAGES, EvaluatorOptions


@dataclass(frozen=True)
class PublishedNetwork:
    """A network with published results.

    Attributes:
        name: shown in tables.
        backbone: timm's name, if it is a bare backbone.
        run: settings that the configuration of a run of it has, by section.
    """

    name: str
    backbone: str | None = None
    run: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def is_run_with(self, config: Mapping[str, Any]) -> bool:
        """Whether a run with the configuration ``config``, which may hold anything, is one of it.

        A setting that ``config`` lacks is taken to differ.
        """
        return bool(self.run) and all(
            isinstance(section := config.get(name), Mapping)
            and all(key in section and section[key] == value for key, value in settings.items())
            for name, settings in self.run.items()
        )


@dataclass(frozen=True)
class PublishedResult:
    """A row of a published table.

    Attributes:
        network: what was evaluated.
        evaluator: our name of its score.
        metrics: by the names of ``METRICS``.
        source: where the numbers are.
    """

    network: PublishedNetwork
    evaluator: str
    metrics: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Setting:
    """How the targets of a table are evaluated.

    Attributes:
        backbones, runs: evaluators of bare backbones, and of networks with a relational module.
        references: which references are used.
        neighbors: k of the k-NN scores.
        classifier: which classifier is trained on the references.
    """

    backbones: tuple[str, ...]
    runs: tuple[str, ...]
    references: ReferenceConfig
    neighbors: int
    classifier: ClassifierOptions


@dataclass(frozen=True)
class PublishedTarget:
    """A column of a published table: a target of one of our protocols.

    Attributes:
        name: shown in tables.
        protocol: the protocol.
        target: the name of its target.
        results: those that are published.
    """

    name: str
    protocol: Protocol
    target: str
    results: tuple[PublishedResult, ...]


@dataclass(frozen=True)
class PublishedTable:
    """Targets that are evaluated alike, whether or not their results are public."""

    name: str
    setting: Setting
    targets: tuple[PublishedTarget, ...]


def load_published(path: Path) -> tuple[PublishedTable, ...]:
    """Read the tables of a YAML file such as configs/published/results.yaml.

    Raises:
        ConfigError: the file or a protocol that it names cannot be read, or does not have its
            format, or names something that does not exist.
    """
    content = Fields.read(path)
    content.expect(("sources", "networks", "tables"))
    sources, networks, tables = map(content.mapping, ("sources", "networks", "tables"))
    parser = _Parser(
        path.parent,
        {name: sources.word(name) for name in sources.values},
        {name: _network(name, networks.mapping(name)) for name in networks.values},
    )
    return tuple(parser.table(name, tables.mapping(name)) for name in tables.values)


def _network(name: str, entry: Fields) -> PublishedNetwork:
    entry.expect((), ("backbone", "run"))
    if len(entry.values) != 1:
        entry.fail("expected either backbone or run")
    if "backbone" in entry.values:
        return PublishedNetwork(name, backbone=entry.word("backbone"))
    run = entry.mapping("run")
    return PublishedNetwork(name, run={key: run.mapping(key).values for key in run.values})


def _setting(entry: Fields) -> Setting:
    given = Fields(entry.where, {})
    if "setting" in entry.values:
        given = entry.mapping("setting")
        options = ("shots", "seed", "with_replacement", "neighbors", "classifier", "budget")
        given.expect((), options)

    def whole(key: str, default: int, low: int = 1) -> int:
        return given.number(key, int, low, 10**9) if key in given.values else default

    classifier = None
    if "classifier" in given.values:
        classifier = given.word("classifier")
        if classifier not in ("head", "full"):
            given.fail(f"classifier is {classifier}; choose head or full")
    backbones, runs = (_evaluators(entry, key) for key in ("backbones", "runs"))
    for name in (*backbones, *runs):
        if (name in NEED_CLASSIFIER and not classifier) or (
            name in WITH_IMAGES and classifier != "full"
        ):
            entry.fail(f"{name} needs another classifier in the setting")
    return Setting(
        backbones,
        runs,
        ReferenceConfig(
            shots=whole("shots", ReferenceConfig.shots),
            seed=(whole("seed", 0, low=0),),
            with_replacement="with_replacement" in given.values
            and given.switch("with_replacement"),
        ),
        whole("neighbors", EvaluatorOptions.neighbors),
        ClassifierOptions(
            classifier,  # type: ignore[arg-type]
            whole("budget", ClassifierOptions.budget),
        ),
    )


def _evaluators(entry: Fields, key: str) -> tuple[str, ...]:
    names = entry.words(key) if key in entry.values else ()
    if unknown := [name for name in names if name not in EVALUATORS]:
        entry.fail(f"{key} holds {unknown[0]}, which is no evaluator")
    return names


@dataclass(frozen=True)
class _Parser:
    """Makes tables of their descriptions, with what these refer to by name."""

    folder: Path
    sources: Mapping[str, str]
    networks: Mapping[str, PublishedNetwork]

    def table(self, name: str, entry: Fields) -> PublishedTable:
        entry.expect(("targets",), ("backbones", "runs", "setting", "results"))
        targets = entry.mapping("targets")
        results: dict[str, list[PublishedResult]] = {target: [] for target in targets.values}
        for block in entry.mappings("results") if "results" in entry.values else []:
            for target, result in self._results(block):
                if target not in results:
                    block.fail(f"there is no target {target}")
                results[target].append(result)
        return PublishedTable(
            name,
            _setting(entry),
            tuple(
                self._target(target, targets.mapping(target), tuple(of_target))
                for target, of_target in results.items()
            ),
        )

    def _target(
        self, name: str, entry: Fields, results: tuple[PublishedResult, ...]
    ) -> PublishedTarget:
        entry.expect(("protocol", "target"))
        protocol = Protocol.load(self.folder / entry.word("protocol"))
        target = protocol.target(entry.word("target"))
        return PublishedTarget(name, protocol, target.name, results)

    def _results(self, block: Fields) -> Iterator[tuple[str, PublishedResult]]:
        """The results of a block, each with the name of its target."""
        block.expect(("source", "evaluator", "metrics", "values"))
        source, evaluator, metrics = (
            block.word("source"),
            block.word("evaluator"),
            block.words("metrics"),
        )
        for what, name, names in (
            ("source", source, self.sources),
            ("evaluator", evaluator, EVALUATORS),
            *(("metric", metric, METRICS) for metric in metrics),
        ):
            if name not in names:
                block.fail(f"there is no {what} {name}")
        values = block.mapping("values")
        for network in values.values:
            if network not in self.networks:
                values.fail(f"there is no network {network}")
            of_network = values.mapping(network)
            for target in of_network.values:
                numbers = of_network.items(target)
                if len(numbers) != len(metrics):
                    of_network.fail(f"{target} needs {len(metrics)} numbers, one for each metric")
                pairs = Fields(
                    f"{of_network.where}: {target}", dict(zip(metrics, numbers, strict=True))
                )
                shares = {metric: pairs.number(metric, float, 0, 1) for metric in metrics}
                yield (
                    target,
                    PublishedResult(
                        self.networks[network], evaluator, shares, self.sources[source]
                    ),
                )
