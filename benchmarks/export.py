"""The size and the speed of exported detectors on a CPU, by the number of known classes.

    python -m benchmarks.export [--rounds 7]

The networks have random weights. Each detector is exported to ONNX as a model of images and as one
of features, which onnxruntime runs for one image at a time with all of the process's cores. The
models take turns, round by round; the tables show medians. Memory of the comparison is not
measured: it grows with the number of pairs.
"""

import argparse
import os
import statistics
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnxruntime
import torch

from benchmarks.harness import markdown_table, seconds_per_call
from evaluation.detectors.detector import (
    Detector,
    KnownClass,
    NetworkOrigin,
    Rule,
    StoredReferences,
    Threshold,
)
from evaluation.detectors.export import exported
from evaluation.trained import TrainedNetwork
from model.config import EvaluatorOptions, ModelConfig
from model.network import build_network

CLASSES = (6, 54, 345)
TOP = 5
NETWORKS = {
    "ResNet-18, 768 x 4": ModelConfig(),
    "EfficientNet-Lite0, 384 x 2": ModelConfig(
        "tf_efficientnet_lite0", embed_dim=384, depth=2, num_heads=6
    ),
}
RULES = (("cosine", None), ("relation-logit", None), ("relation-logit", TOP))
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """A detector's two models.

    Attributes:
        words: network, evaluator and known classes.
        models: of images and of features.
        inputs: of each, one image.
    """

    words: tuple[str, ...]
    models: tuple[bytes, bytes]
    inputs: tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a model's calls in a round")
    arguments = parser.parse_args()
    rows = [
        _row(name, network, classes, evaluator, top)
        for name, network in _networks().items()
        for classes, (evaluator, top) in product(CLASSES, RULES)
    ]
    sessions = [[_session(model) for model in row.models] for row in rows]
    latencies: list[list[list[float]]] = [[[], []] for _ in rows]
    for _ in range(arguments.rounds):
        for row, pair, found in zip(rows, sessions, latencies, strict=True):
            for session, inputs, seconds in zip(pair, row.inputs, found, strict=True):
                seconds.append(_latency(session, inputs, arguments.seconds))
    cells = [
        [
            *row.words,
            *(f"{len(model) / 1e6:.1f}" for model in row.models),
            *(f"{1e3 * statistics.median(seconds):.2f}" for seconds in found),
        ]
        for row, found in zip(rows, latencies, strict=True)
    ]
    print(f"onnxruntime {onnxruntime.__version__}, {len(os.sched_getaffinity(0))} cores, float32\n")
    columns = ["network", "evaluator", "classes", "images: MB", "features: MB"]
    print(markdown_table([*columns, "images: ms", "features: ms"], cells))


def _networks() -> dict[str, TrainedNetwork]:
    torch.manual_seed(0)
    return {
        name: TrainedNetwork.of(build_network(config), _CPU) for name, config in NETWORKS.items()
    }


def _row(name: str, network: TrainedNetwork, classes: int, evaluator: str, top: int | None) -> Row:
    width = network.network.width
    labels = torch.arange(classes)
    detector = Detector(
        network,
        NetworkOrigin({}, bare=False, path=None, step=None, sha256="0" * 64),
        Rule(evaluator, EvaluatorOptions(top=min(top, classes) if top else None)),
        tuple(KnownClass(f"class {number}", 1, "random") for number in range(classes)),
        StoredReferences(torch.randn(classes, width), labels, labels < 0, only_means=True),
        Threshold(0.0, 1.0, 1, None, 0.0),
    )
    models = [exported(detector, "onnx", features=features) for features in (False, True)]
    images, features = (model.inputs[:1].numpy() for model in models)
    return Row(
        (name, evaluator if top is None else f"{evaluator}, top {top}", str(classes)),
        (models[0].content, models[1].content),
        (images, features),
    )


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # idle threads of one model would take the cores from the model whose turn it is
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _latency(session: onnxruntime.InferenceSession, inputs: np.ndarray, seconds: float) -> float:
    (name,) = (given.name for given in session.get_inputs())
    return seconds_per_call(lambda: session.run(None, {name: inputs}), _CPU, seconds)


if __name__ == "__main__":
    main()
