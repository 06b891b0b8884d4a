"""What the commands on detectors share: the process, features, and what they report."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from evaluation.config import BATCH_SIZE
from evaluation.detectors.detector import Detector, StoredReferences
from evaluation.detectors.feature_stream import FeatureStream, StreamedFeatures
from evaluation.detectors.options import ComputeOptions, SelectionOptions
from evaluation.detectors.source_images import ImageSet, LabeledImages
from evaluation.extractor import ExtractionConfig
from evaluation.report.text import plain
from evaluation.trained import TrainedNetwork
from model.errors import EvaluatorError
from pipelines.config import InputConfig
from pipelines.selection import Selection
from runtime.distributed import Process, process_group
from runtime.errors import ConfigError


@contextmanager
def only_process(config: ComputeOptions) -> Iterator[Process]:
    """This process, on its device; ConfigError where torchrun started several."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("this command runs in one process; start it without torchrun")
    with process_group(config.device) as process:
        yield process


@contextmanager
def evaluator_errors() -> Iterator[None]:
    """Turn an EvaluatorError inside into a ConfigError."""
    try:
        yield
    except EvaluatorError as error:
        raise ConfigError(str(error)) from error


def selected(config: SelectionOptions) -> Selection:
    """The images of a pack that the options select."""
    return Selection(config.domains, config.classes, config.splits)


class ReferenceFeatures:
    """Extracts features, and remembers what was left out."""

    def __init__(self, network: TrainedNetwork, config: ComputeOptions, process: Process) -> None:
        self.network, self.process = network, process
        self.extraction = ExtractionConfig(
            InputConfig(device=config.device),
            config.batch_size or BATCH_SIZE[process.device.type],
        )
        self._notes: list[str] = []
        self._skipped: list[str] = []

    def of(self, found: ImageSet) -> StreamedFeatures:
        """The features of the images that can be read."""
        stream = FeatureStream(self.network, found.images, self.extraction, self.process)
        features = stream.all()
        self._notes += found.notes
        self._skipped += stream.skipped
        return features

    def references(self, known: LabeledImages) -> StoredReferences:
        """The references of all classes; ConfigError where none of a class can be read."""
        features = self.of(known.found)
        labels = known.labels[features.items]
        counts = np.bincount(labels, minlength=len(known.classes))
        if not counts.all():
            name = plain(known.classes[int(counts.argmin())])
            raise ConfigError(
                f"no image of class {name} in {known.source} can be read; repair its images or "
                "remove the class"
            )
        classes = torch.from_numpy(labels).to(features.values.device)
        return StoredReferences(features.values, classes, torch.zeros_like(classes).bool())

    def report(self) -> int:
        """Name what was left out on standard error; returns 1 where an image could not be read."""
        return report_left_out(self._notes, self._skipped)


def report_left_out(notes: Sequence[str], skipped: Sequence[str]) -> int:
    """Print ``notes`` and the images that were ``skipped``; returns the exit status."""
    for note in notes:
        print(f"note: {plain(note)}", file=sys.stderr)
    for line in skipped:
        print(f"skipped: {plain(line)}", file=sys.stderr)
    return 1 if skipped else 0


def print_summary(folder: Path, detector: Detector, before: Detector | None = None) -> None:
    """Say what is in ``folder`` now, where ``before`` was before."""
    threshold = detector.threshold
    images = sum(known.images for known in detector.classes)
    print(
        f"detector in {plain(str(folder))}: {len(detector.classes)} classes, {images:,} references"
    )
    chosen_on = f"images of {threshold.source}" if threshold.source else "held-out references"
    kept = before is not None and not before.can_rechoose
    print(
        f"threshold: {'kept, ' if kept else ''}normality {threshold.value:.6g} accepts "
        f"{threshold.accepted:,} of {threshold.images:,} {plain(chosen_on)} "
        f"(recall {100 * threshold.recall:.3g}%)"
    )
