"""A protocol on the shared small pack, and a network with random weights."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

import evaluate
import predict
from evaluation.__main__ import main as evaluation
from evaluation.benchmark import BenchmarkConfig, BenchmarkResult, run_benchmark
from evaluation.config import EvaluateConfig, NetworkOptions
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.networks import load_networks
from evaluation.protocol import Protocol
from evaluation.receipt import Receipt
from evaluation.trained import load_network
from model.config import ModelConfig, PreprocessingOptions
from model.network import build_network
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime import checkpoint
from runtime.distributed import Process

COMMANDS = ("fit", "add-class", "remove-class", "export")  # of python -m evaluation
ALONE = Process(0, 0, 1, torch.device("cpu"))
MODEL = ModelConfig(backbone="test_resnet", embed_dim=24, depth=2, num_heads=3)


@pytest.fixture(scope="session")
def protocol_file(tmp_path_factory) -> Path:
    """Known: cat, ant, bee. Target day has references of night, night those of day."""
    path = tmp_path_factory.mktemp("protocols") / "animals.yaml"
    known = ["cat", "ant", "bee"]
    targets = {
        target: {
            "reference": [{"domains": [other], "classes": known}],
            "test": [{"domains": [target]}],
        }
        for target, other in (("day", "night"), ("night", "day"))
    }
    content = {"name": "Animals", "dataset": "imagefolder", "known": known, "targets": targets}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A run with one checkpoint of a small network with random weights."""
    run = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    network = build_network(MODEL)
    for parameter in network.relation.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config = {"model": asdict(MODEL), "input": {"image_size": 48}}
    checkpoint.save(run, 1, weights=network.state_dict(), config=config, metrics={})
    return run


@pytest.fixture(scope="session")
def results(pack_path, protocol_file, run_folder) -> list[BenchmarkResult]:
    """The protocol evaluated by cosine."""
    network = load_network(run_folder, ALONE.device)
    config = ExtractionConfig(InputConfig(device="cpu"))
    extractor = FeatureExtractor(network, Pack(pack_path), ALONE, config)
    protocol = Protocol.load(protocol_file)
    targets = [target.name for target in protocol.targets]
    return [run_benchmark(protocol, targets, extractor, BenchmarkConfig(("cosine",), resamples=2))]


@pytest.fixture(scope="session")
def receipt(pack_path, protocol_file, run_folder) -> Receipt:
    options = EvaluateConfig(
        protocol=(str(protocol_file),), pack=(str(pack_path),), checkpoint=(run_folder,)
    )
    networks = load_networks(options.part(NetworkOptions), PreprocessingOptions(), ALONE.device)
    return Receipt("evaluate.py", networks, options, ALONE, 1.0)


@pytest.fixture
def arguments(pack_path, protocol_file, run_folder, tmp_path):
    """Builds the arguments of `evaluate.py` from options by name, without dashes."""

    def build(out: str = "out", **options):
        values = {
            "protocol": protocol_file,
            "pack": pack_path,
            "checkpoint": run_folder,
            "out": tmp_path / out,
            "cache": tmp_path / "cache",
            "neighbors": 5,
            "resamples": 20,
            "device": "cpu",
            **options,
        }
        words = []
        for name, value in values.items():
            if value is None:
                continue
            words.append("--" + name.replace("_", "-"))
            if value is not True:
                words += value.split() if isinstance(value, str) else [str(value)]
        return words

    return build


@pytest.fixture
def refusal(error_line):
    """Runs a command that must exit with 2; returns its line on standard error."""

    def refuse(words: list[str]) -> str:
        assert evaluate.main(words) == 2
        return error_line()

    return refuse


def fit_words(checkpoint: Path, references: Path, out: Path, *options: str) -> list[str]:
    """The arguments of `python -m evaluation fit`; of a pack, ants, bees and cats are known."""
    words = ["fit", "--checkpoint", checkpoint, "--references", references, "--out", out]
    known = ["--classes", "ant", "bee", "cat"] if (references / "manifest.json").exists() else []
    return [*map(str, words), *known, "--device", "cpu", *options]


@pytest.fixture(scope="session")
def fitted(run_folder, pack_path, tmp_path_factory) -> Path:
    """A detector of ants, bees and cats, by cosine; not to be changed by a test."""
    out = tmp_path_factory.mktemp("detectors") / "fitted"
    assert evaluation(fit_words(run_folder, pack_path, out, "--evaluator", "cosine")) == 0
    return out


@pytest.fixture
def detector_refusal(error_line):
    """Runs `python -m evaluation` or, if the words name no command of it, `predict.py`, which must
    exit with 2; returns its line on standard error."""

    def refuse(*words: str | Path) -> str:
        given = [str(word) for word in words]
        command = (
            evaluation
            if given[0] in ("fit", "add-class", "remove-class", "export")
            else predict.main
        )
        assert command(given) == 2
        return error_line()

    return refuse
