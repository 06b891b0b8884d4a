"""Objectives at equal budget on the demo: AUROC on classes never trained on, as a table.

    python -m benchmarks.objectives --pack packs/demo --backbone runs/quickstart/backbone

Trains the quickstart's relation once per objective, plainly and from a similarity start, from
the backbone of the quickstart's first phase and from random weights; evaluates each on
configs/benchmarks/demo.yaml next to distances on the same features; writes
benchmarks/results/objectives.md. About a minute per training on 2 CPU cores.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from evaluation.benchmark import BenchmarkConfig, run_benchmark
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.protocol import Protocol
from evaluation.trained import load_network
from model.config import WHITENED_COSINE, EvaluatorOptions, ObjectiveConfig
from pipelines.pack import Pack
from runtime.config import load_config
from runtime.distributed import Process, process_group
from training.config import OptimizerConfig, TrainConfig
from training.run import train

EVALUATORS = (
    "relation-softmax",
    "relation-logit",
    "cosine",
    WHITENED_COSINE,
    "knn-normalized",
    "mahalanobis-normalized",
)
RANDOM_LR = 0.003  # AdamW's from random weights, as in configs/quickstart_backbone.yaml
# Each with the number of logits of its head.
OBJECTIVES: tuple[tuple[str, ObjectiveConfig, int], ...] = (
    ("mse, c = 10 (the paper)", ObjectiveConfig("mse"), 1),
    ("hinge, m = 0.01 (the follow-up)", ObjectiveConfig("hinge"), 1),
    ("bce", ObjectiveConfig("bce"), 1),
    ("cross_entropy, two logits", ObjectiveConfig("cross_entropy"), 2),
    ("focal, gamma = 3", ObjectiveConfig("focal"), 1),
)


@dataclass(frozen=True)
class Training:
    """One training: objective and start in words, and its configuration."""

    name: str
    start: str
    config: TrainConfig


@dataclass(frozen=True)
class Row:
    """How a training ended, and the AUROC by (evaluator, unseen or seen), if the features can be
    evaluated."""

    training: Training
    loss: float
    same: float
    different: float
    auroc: dict[tuple[str, str], float]


def main() -> int:
    options = _options()
    started = time.perf_counter()
    recipe = load_config(
        TrainConfig,
        [
            f"--config={options.config}",
            f"--data.pack={options.pack}",
            f"--model.backbone_weights={options.backbone}",
            f"--train.iterations={options.steps}",
            "--log.tensorboard=false",
        ],
        prog="benchmarks.objectives",
        description="",
    )
    rows = []
    with process_group("auto") as process, tempfile.TemporaryDirectory() as folder:
        for number, training in enumerate(_trainings(recipe)):
            config = replace(training.config, out=Path(folder) / str(number))
            if status := train(config, process):
                return status
            rows.append(_evaluate(replace(training, config=config), options, process))
            minutes = (time.perf_counter() - started) / 60
            Path(options.out).write_text(_document(options, recipe, rows, minutes))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="packs/demo", help="the demo's pack")
    parser.add_argument(
        "--backbone", default="runs/quickstart/backbone", help="the first phase's run"
    )
    parser.add_argument("--config", default="configs/quickstart.yaml", help="the recipe")
    parser.add_argument("--protocol", default="configs/benchmarks/demo.yaml", help="the benchmark")
    parser.add_argument("--unseen", default="painting", help="the target never trained on")
    parser.add_argument("--steps", type=int, default=250, help="steps of each training")
    parser.add_argument("--out", default="benchmarks/results/objectives.md", help="the table")
    return parser.parse_args()


def _trainings(recipe: TrainConfig) -> list[Training]:
    plain = replace(recipe, model=replace(recipe.model, similarity_start=False))
    cosine = replace(recipe, model=replace(recipe.model, similarity_start="cosine"))
    trained = [
        Training(
            name,
            start,
            replace(
                config, objective=objective, model=replace(config.model, num_logits=num_logits)
            ),
        )
        for start, config in (("backbone, plain", plain), ("backbone, whitened", recipe))
        for name, objective, num_logits in OBJECTIVES
    ]
    mse, bce = ObjectiveConfig("mse"), ObjectiveConfig("bce")
    lars = replace(plain, optimizer=OptimizerConfig(name="lars", lr=1.0))
    return [
        *trained,
        Training("bce", "backbone, cosine", replace(cosine, objective=bce)),
        _from_random("mse, c = 10", "random, plain", replace(plain, objective=mse)),
        _from_random("mse, c = 10, LARS at 1", "random, plain", replace(lars, objective=mse)),
        _from_random("bce", "random, plain", replace(plain, objective=bce)),
        _from_random("mse, c = 10", "random, cosine", replace(cosine, objective=mse)),
        _from_random("bce", "random, cosine", replace(cosine, objective=bce)),
    ]


def _from_random(name: str, start: str, config: TrainConfig) -> Training:
    optimizer = config.optimizer
    if optimizer.name == "adamw":
        optimizer = replace(optimizer, lr=RANDOM_LR)
    model = replace(config.model, backbone_weights=None)
    return Training(name, start, replace(config, model=model, optimizer=optimizer))


def _evaluate(training: Training, options: argparse.Namespace, process: Process) -> Row:
    protocol = Protocol.load(options.protocol)
    config = training.config
    whitened = config.model.similarity_start == "whitened"
    evaluators = tuple(e for e in EVALUATORS if whitened or e != WHITENED_COSINE)
    auroc = {}
    try:
        found = run_benchmark(
            protocol,
            [target.name for target in protocol.targets],
            FeatureExtractor(
                load_network(config.out, process.device),
                Pack(options.pack),
                process,
                ExtractionConfig(config.input),
            ),
            BenchmarkConfig(evaluators, EvaluatorOptions(neighbors=5), resamples=1),
        )
    except ValueError as error:
        print(f"{training.name}: {error}", file=sys.stderr)
    else:
        for evaluator in evaluators:
            areas = {t.name: t.evaluators[evaluator].metrics["auroc"] for t in found.targets}
            auroc[evaluator, "unseen"] = areas.pop(options.unseen)
            auroc[evaluator, "seen"] = sum(areas.values()) / len(areas)
    last = json.loads((config.out / "log.jsonl").read_text().splitlines()[-1])
    return Row(training, last["loss"], last["accuracy_same"], last["accuracy_different"], auroc)


def _document(
    options: argparse.Namespace, recipe: TrainConfig, rows: Sequence[Row], minutes: float
) -> str:
    table = [
        "| objective | start | loss | right same | right different "
        + "".join(f"| {evaluator} " for evaluator in EVALUATORS)
        + "|",
        "| --- | --- " + "| ---: " * (3 + len(EVALUATORS)) + "|",
    ]
    for row in rows:
        cells = [f"{row.loss:.3f}", f"{row.same:.2f}", f"{row.different:.2f}"]
        for evaluator in EVALUATORS:
            seen, unseen = (row.auroc.get((evaluator, which)) for which in ("seen", "unseen"))
            if seen is not None:
                cells.append(f"{seen:.3f} / {unseen:.3f}")
            else:
                cells.append("" if row.auroc else "same features")
        table.append(f"| {row.training.name} | {row.training.start} | " + " | ".join(cells) + " |")
    sampling = recipe.data.sampling
    return "\n".join(
        [
            "# Objectives at equal budget",
            "",
            f"Made by `python -m benchmarks.objectives --steps {options.steps}` in {minutes:.0f} "
            f"minutes on {len(os.sched_getaffinity(0))} cores ({platform.machine()}), torch "
            f"{torch.__version__}. One seed each: differences below about 0.01 mean nothing.",
            "",
            f"Each training: {options.steps} steps of {sampling.pairs_per_group:,} pairs of "
            f"{sampling.images_per_group} images of the demo's training classes "
            f"({sampling.classes} classes x {sampling.images} images), {sampling.negatives} "
            f"negatives a positive, {recipe.optimizer.name} at {recipe.optimizer.lr:g}, from "
            f"random weights at {RANDOM_LR:g}, unless named otherwise. *backbone* begins at the "
            "backbone of the quickstart's first phase, *random* at random weights; *plain*, "
            "*cosine* and *whitened* are the relation's start. Loss and shares of pairs judged "
            "right are those of the last steps of training. Values under an evaluator are AUROC "
            "on classes never trained on, in seen domains (mean) / in a domain never trained on; "
            "known is the positive class. The evaluators from cosine on use the same features and "
            "not the relation; knn-normalized takes the 5th nearest reference; whitened-cosine "
            "needs a whitened start. *same features*: training has made the features of all "
            "images the same.",
            "",
            *table,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
