"""The rate of predict.py compared with that of evaluate.py's feature extraction on the same images.

    python -m benchmarks.predict --root TREE [--backbone resnet18] [--rounds 5]

TREE, `<class>/<image>` or `<domain>/<class>/<image>`, is packed into a temporary folder; a network
of the published sizes with random weights and a third of the classes make a detector. The ways take
turns, round by round; the table shows the median rates and the median ratios within a round:

extract           evaluate.py's feature extraction from the pack, without its cache
predict PACK      all that predict.py does after it has loaded the detector: reading, checking,
                  decoding, features, scores, the file of predictions
predict FOLDER    the same from the files of the tree
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import markdown_table, median_ratio, seconds_of
from evaluation.config import BATCH_SIZE
from evaluation.detectors.detector import Detector
from evaluation.detectors.fitting import fit
from evaluation.detectors.options import FitConfig, PredictConfig
from evaluation.detectors.prediction import predict_images
from evaluation.detectors.source_images import images_in
from evaluation.detectors.storage import load
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from model.config import ModelConfig
from model.network import build_network
from pipelines.config import InputConfig
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime import checkpoint
from runtime.distributed import process_group
from sharding.executors import run_local
from sharding.packing import pack
from sharding.shard_plan import PackOptions
from sharding.sources.imagefolder import imagefolder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="a tree of images")
    parser.add_argument("--backbone", default="resnet18", help="a model of timm")
    parser.add_argument("--evaluator", default="cosine", help="of the detector")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is taken")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        execute = partial(run_local, workers=len(os.sched_getaffinity(0)))
        pack(imagefolder(arguments.root), work / "pack", PackOptions(), execute)
        _save_run(work / "run", arguments.backbone)
        classes = Pack(work / "pack").manifest.classes
        known = classes[: max(1, len(classes) // 3)]
        subject = FitConfig(
            checkpoint=work / "run",
            references=work / "pack",
            out=work / "detector",
            classes=known,
            evaluator=arguments.evaluator,
        )
        fit(subject)
        print(_compare(work, arguments.root, arguments.rounds))


def _save_run(run: Path, backbone: str) -> None:
    torch.manual_seed(0)
    model = ModelConfig(backbone=backbone)
    weights = build_network(model).state_dict()
    checkpoint.save(run, 1, weights=weights, config={"model": asdict(model)}, metrics={})


def _compare(work: Path, root: Path, rounds: int) -> str:
    with process_group("auto") as process:
        detector = load(work / "detector", process.device)
        opened = Pack(work / "pack")
        rows = Selection().rows(opened)
        config = ExtractionConfig(InputConfig(), BATCH_SIZE[process.device.type])
        extractor = FeatureExtractor(detector.network, opened, process, config)

        def predict(path: Path) -> object:
            images = images_in(path, Selection()).images
            return predict_images(detector, images, PredictConfig(work / "out.csv"), process)

        ways: dict[str, Callable[[], object]] = {
            "extract": partial(extractor.run, rows),
            "predict PACK": partial(predict, work / "pack"),
            "predict FOLDER": partial(predict, root),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                took = seconds_of(way, process.device)
                if number:  # the first round warms up
                    seconds[name].append(took)
    return _table(detector, len(rows), seconds)


def _table(detector: Detector, images: int, seconds: dict[str, list[float]]) -> str:
    rows = [
        (
            name,
            f"{images / statistics.median(took):.1f}",
            f"{median_ratio(seconds['extract'], took):.2f}",
        )
        for name, took in seconds.items()
    ]
    heading = f"{images} images, {len(detector.classes)} known classes, {detector.rule.evaluator}"
    return f"{heading}\n\n{markdown_table(('way', 'images/s', 'x extract'), rows)}"


if __name__ == "__main__":
    main()
