"""``predict.py``, from its options to the file of predictions."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.config import BATCH_SIZE
from evaluation.detectors import storage
from evaluation.detectors.commands import evaluator_errors, only_process, report_left_out
from evaluation.detectors.detector import Detector
from evaluation.detectors.feature_stream import FeatureStream, StreamedFeatures
from evaluation.detectors.options import PredictConfig
from evaluation.detectors.outputs import check_free
from evaluation.detectors.prediction_files import Prediction, prediction_file
from evaluation.detectors.source_images import ImageSet, image_files, images_in, is_pack
from evaluation.extractor import ExtractionConfig
from evaluation.report.novel import ShownImage, write_novel_page
from evaluation.report.text import plain
from pipelines.config import InputConfig
from pipelines.image_stream import SourceImage
from pipelines.selection import Selection
from runtime.distributed import Process
from runtime.errors import ConfigError
from runtime.precision import exact_float32

_SCORED_AT_ONCE = 512  # images
_SHOWN = 60  # of the most novel images, in the report


@dataclass
class Tally:
    """Counts predictions and keeps the most novel images.

    Attributes:
        known, novel: how many images were found to be so.
        skipped: the images that could not be read, and why.
    """

    known: int = 0
    novel: int = 0
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._most_novel: list[tuple[float, int, Prediction]] = []

    def add(self, items: Sequence[int], predictions: Sequence[Prediction]) -> None:
        """Count the ``predictions`` of the images at the positions ``items``."""
        for item, prediction in zip(items, predictions, strict=True):
            self.known += prediction.known
            self.novel += not prediction.known
            entry = (-prediction.normality, -item, prediction)
            keep = heapq.heappush if len(self._most_novel) < _SHOWN else heapq.heappushpop
            keep(self._most_novel, entry)

    def most_novel(self, images: Sequence[SourceImage]) -> list[ShownImage]:
        """Up to 60 of ``images``, those of the lowest normality first."""
        ordered = sorted(self._most_novel, reverse=True)
        return [ShownImage(images[-item], prediction) for _, item, prediction in ordered]


@exact_float32()
def predict(folder: Path, paths: Sequence[Path], config: PredictConfig) -> int:
    """Predict by the detector in ``folder`` whether the images at ``paths`` are known; returns the
    exit status, 1 where an image could not be read.

    Raises:
        UserError: a detector, a pack, a path or an output cannot be used, or no image can be read.
    """
    for path in filter(None, (config.out, config.report)):
        check_free(path, config.overwrite)
    found = _images(paths)
    with only_process(config) as process, evaluator_errors():
        detector = storage.load(folder, process.device)
        tally = predict_images(detector, found.images, config, process)
    if config.report is not None:
        write_novel_page(config.report, detector, tally.most_novel(found.images))
    print(
        f"{tally.known + tally.novel:,} images: {tally.known:,} known, {tally.novel:,} novel; "
        f"{len(tally.skipped):,} could not be read; predictions in {plain(str(config.out))}"
    )
    return report_left_out(found.notes, tally.skipped)


def predict_images(
    detector: Detector, images: Sequence[SourceImage], config: PredictConfig, process: Process
) -> Tally:
    """Write the predictions of ``images`` to ``config.out``.

    Raises:
        ConfigError: no image can be read, or the file cannot be written.
        CheckpointError: a feature is not finite.
    """
    extraction = ExtractionConfig(
        InputConfig(device=config.device),
        config.batch_size or BATCH_SIZE[process.device.type],
    )
    stream = FeatureStream(detector.network, images, extraction, process)
    tally = Tally()
    with prediction_file(config.out) as file:
        for features in _chunks(stream):
            predictions = _predictions(detector, images, features)
            tally.add(features.items.tolist(), predictions)
            file.write(predictions)
    tally.skipped = stream.skipped
    return tally


def _images(paths: Sequence[Path]) -> ImageSet:
    packs = [path for path in paths if is_pack(path)]
    if not packs:
        return image_files(paths)
    if len(paths) > 1:
        raise ConfigError(f"{packs[0]} is a pack; give it alone, since keys are unique in a pack")
    return images_in(packs[0], Selection())


def _chunks(stream: FeatureStream) -> Iterator[StreamedFeatures]:
    """The features of about 512 images at a time, since some evaluators prepare each call."""
    waiting: list[StreamedFeatures] = []
    for batch in stream:
        waiting.append(batch)
        if sum(len(features.items) for features in waiting) >= _SCORED_AT_ONCE:
            yield StreamedFeatures.joined(waiting)
            waiting.clear()
    if waiting:
        yield StreamedFeatures.joined(waiting)


def _predictions(
    detector: Detector, images: Sequence[SourceImage], features: StreamedFeatures
) -> list[Prediction]:
    scores = detector.novelty.score(features.values)
    names = [known.name for known in detector.classes]
    known = (scores.normality >= detector.threshold.value).tolist()
    ranked = zip(scores.ranking.classes.tolist(), scores.ranking.scores.tolist(), strict=True)
    nearest = [
        tuple((names[c], s) for c, s in zip(*pair, strict=True) if math.isfinite(s))
        for pair in ranked
    ]
    called = [images[item].name for item in features.items.tolist()]
    return list(map(Prediction, called, known, scores.normality.tolist(), nearest))
