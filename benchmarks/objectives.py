"""Objectives at equal budget on the demo: AUROC on classes never trained on, as a table.

    python -m benchmarks.objectives --pack packs/demo --backbone runs/quickstart/backbone

Trains the quickstart's relation once per objective, plainly and from a similarity start, from
the same warmed-up backbone, and the paper's objective from random weights; evaluates each on
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
from model.config import EvaluatorOptions, ObjectiveConfig
from pipelines.pack import Pack
from runtime.config import load_config
from runtime.distributed import Process, process_group
from training.config import OptimizerConfig, TrainConfig
from training.run import train

EVALUATORS = ("relation-softmax", "relation-logit", "cosine", "knn", "mahalanobis")
OBJECTIVES: tuple[tuple[str, ObjectiveConfig, int], ...] = (
    ("mse, c = 10 (the paper)", ObjectiveConfig("mse"), 1),
    ("hinge, m = 0.01 (the follow-up)", ObjectiveConfig("hinge"), 1),
    ("bce", ObjectiveConfig("bce"), 1),
    ("cross_entropy, two logits", ObjectiveConfig("cross_entropy"), 2),
    ("focal, gamma = 3", ObjectiveConfig("focal"), 1),
)


@dataclass(frozen=True)
class Row:
    """One training: what it was, how it ended, and the AUROC by (evaluator, unseen or seen), if the
    features can be evaluated."""

    name: str
    start: str
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
        for number, (name, start, config) in enumerate(_trainings(recipe)):
            config = replace(config, out=Path(folder) / str(number))
            if status := train(config, process):
                return status
            rows.append(_evaluate(name, start, config, options, process))
            minutes = (time.perf_counter() - started) / 60
            Path(options.out).write_text(_document(options, recipe, rows, minutes))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="packs/demo", help="the demo's pack")
    parser.add_argument("--backbone", default="runs/quickstart/backbone", help="a warmed-up run")
    parser.add_argument("--config", default="configs/quickstart.yaml", help="the recipe")
    parser.add_argument("--protocol", default="configs/benchmarks/demo.yaml", help="the benchmark")
    parser.add_argument("--unseen", default="painting", help="the target never trained on")
    parser.add_argument("--steps", type=int, default=250, help="steps of each training")
    parser.add_argument("--out", default="benchmarks/results/objectives.md", help="the table")
    return parser.parse_args()


def _trainings(recipe: TrainConfig) -> list[tuple[str, str, TrainConfig]]:
    trainings = [
        (
            name,
            "similarity" if similarity else "plain",
            replace(
                recipe,
                objective=objective,
                model=replace(recipe.model, similarity_start=similarity, num_logits=logits),
            ),
        )
        for similarity in (False, True)
        for name, objective, logits in OBJECTIVES
    ]
    plain = replace(recipe.model, similarity_start=False)
    mse, gentle = ObjectiveConfig("mse"), ObjectiveConfig("mse", compression=1.0)
    balanced = replace(recipe.data, num_negatives=1)
    trainings += [
        ("mse, c = 1", "plain", replace(recipe, model=plain, objective=gentle)),
        (
            "mse, c = 10, 1 negative",
            "plain",
            replace(recipe, model=plain, objective=mse, data=balanced),
        ),
    ]
    scratch = replace(recipe, model=replace(plain, backbone_weights=None), objective=mse)
    lars = replace(scratch, optimizer=OptimizerConfig(name="lars", lr=1.0))
    trainings += [
        ("mse, c = 10, AdamW", "random", scratch),
        ("mse, c = 10, LARS at 1", "random", lars),
        ("mse, c = 1, LARS at 1", "random", replace(lars, objective=gentle)),
        ("mse, c = 10, 1 negative, LARS at 1", "random", replace(lars, data=balanced)),
        ("bce, AdamW", "random", replace(scratch, objective=ObjectiveConfig("bce"))),
    ]
    return trainings


def _evaluate(
    name: str, start: str, config: TrainConfig, options: argparse.Namespace, process: Process
) -> Row:
    protocol = Protocol.load(options.protocol)
    auroc = {}
    try:
        extractor = FeatureExtractor(
            load_network(config.out, process.device),
            Pack(options.pack),
            process,
            ExtractionConfig(config.input),
        )
        found = run_benchmark(
            protocol,
            [target.name for target in protocol.targets],
            extractor,
            BenchmarkConfig(EVALUATORS, EvaluatorOptions(neighbors=5), resamples=1),
        )
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
    else:
        for evaluator in EVALUATORS:
            areas = {t.name: t.evaluators[evaluator].metrics["auroc"] for t in found.targets}
            auroc[evaluator, "unseen"] = areas.pop(options.unseen)
            auroc[evaluator, "seen"] = sum(areas.values()) / len(areas)
    last = json.loads((config.out / "log.jsonl").read_text().splitlines()[-1])
    return Row(name, start, last["loss"], last["accuracy_same"], last["accuracy_different"], auroc)


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
        if row.auroc:
            areas = [(row.auroc[e, "seen"], row.auroc[e, "unseen"]) for e in EVALUATORS]
            cells += [f"{seen:.3f} / {unseen:.3f}" for seen, unseen in areas]
        else:
            cells += ["same features" for _ in EVALUATORS]
        table.append(f"| {row.name} | {row.start} | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            "# Objectives at equal budget",
            "",
            f"Made by `python -m benchmarks.objectives --steps {options.steps}` in {minutes:.0f} "
            f"minutes on {len(os.sched_getaffinity(0))} cores ({platform.machine()}), torch "
            f"{torch.__version__}. One seed each: differences below about 0.01 mean nothing.",
            "",
            f"Each training: {options.steps} steps of {recipe.train.global_batch} pairs of the "
            f"demo's training classes, {recipe.data.num_negatives} negatives a positive, "
            f"{recipe.optimizer.name} at {recipe.optimizer.lr:g} unless named otherwise. *plain* "
            "and *similarity* begin at the same backbone, warmed up by classification, *random* at "
            "random weights. Loss and shares of pairs judged right are those of the last steps "
            "of training. Values under an evaluator are AUROC on classes never trained on, in "
            "seen domains (mean) / in a domain never trained on; known is the positive class. "
            "cosine, knn (5) and mahalanobis use the same features and not the relation. *same "
            "features*: training has made the features of all images the same.",
            "",
            *table,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
