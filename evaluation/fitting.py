"""The commands of ``python -m evaluation`` that fit a detector and change its classes."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from evaluation import detector_folder
from evaluation.config import BATCH_SIZE
from evaluation.detector import (
    BY_MEANS,
    Detector,
    KnownClass,
    NetworkOrigin,
    Rule,
    StoredReferences,
    Threshold,
    choose_on_held_out,
    hold_out,
    novelty_detector,
)
from evaluation.detector_config import AddClassConfig, ComputeOptions, FitConfig, SelectionOptions
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.feature_stream import FeatureStream, StreamedFeatures
from evaluation.report.text import plain
from evaluation.source_images import ImageSet, LabeledImages, images_in
from evaluation.trained import Provenance, TrainedNetwork, build_trained, read_checkpoint
from evaluation.whitening import learn_whitening
from model.config import WHITENED_COSINE, EvaluatorOptions, ModelConfig, PreprocessingOptions
from model.errors import EvaluatorError
from model.whitening import Whitening
from pipelines.config import InputConfig
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.checkpoint import Checkpoint
from runtime.distributed import Process, process_group
from runtime.errors import ConfigError
from runtime.precision import exact_float32
from sharding.arguments import local_folder
from sharding.format.strict_json import printable
from sharding.sources.names import check_name


@exact_float32()
def fit(config: FitConfig) -> int:
    """Fit a detector and save it; returns the exit status, 1 where an image could not be read.

    Raises:
        UserError: a checkpoint, a pack, a folder or an option cannot be used.
    """
    detector_folder.check_out(config.out, config.overwrite)
    _check_rule(config)
    known = LabeledImages.open(config.references, _selection(config))
    threshold_set = _threshold_set(config, known)
    with only_process(config) as process, evaluator_errors():
        checkpoint = read_checkpoint(config.checkpoint)
        network = build_trained(checkpoint, process.device, _preprocessing(config))
        features = _Features(network, config, process)
        references = features.references(known)
        rule = _rule(config, features)
        if threshold_set is None:
            held_out = hold_out(references.labels, config.held_out)
            references = replace(references, held_out=held_out)
            threshold = choose_on_held_out(
                network, rule, references, config.recall, config.held_out
            )
        else:
            tests = features.of(threshold_set.found).values
            value = novelty_detector(network, rule, references).choose_threshold(
                tests, config.recall
            )
            source = printable(str(threshold_set.source))
            threshold = Threshold(value, config.recall, len(tests), source, held_out=0.0)
        detector = Detector(
            network=network,
            origin=_origin(checkpoint),
            rule=rule,
            classes=_known_classes(known, references),
            references=references.means() if config.prototypes_only else references,
            threshold=threshold,
        )
    detector_folder.save(detector, config.out)
    _print_summary(config.out, detector)
    return features.report()


@exact_float32()
def add_class(folder: Path, name: str, images: Path, config: AddClassConfig) -> int:
    """Add the known class ``name`` to the detector in ``folder``, of which ``images`` are
    references; returns the exit status as ``fit``.

    Raises:
        UserError: the class is there already, or a detector, a pack or a folder cannot be used.
    """
    check_name(name, "NAME")
    with detector_folder.locked(folder), only_process(config) as process, evaluator_errors():
        detector = detector_folder.load(folder, process.device)
        detector.check_is_new(name)
        features = _Features(detector.network, config, process)
        values = features.of(images_in(images, _selection(config))).values
        added = KnownClass(name, len(values), printable(str(images)))
        changed = detector.with_class(added, values)
        detector_folder.save(changed, folder)
    _print_summary(folder, changed, before=detector)
    return features.report()


@exact_float32()
def remove_class(folder: Path, name: str) -> int:
    """Remove the known class ``name`` from the detector in ``folder``; returns 0.

    Raises:
        UserError: there is no such class, or the detector cannot be read or written.
    """
    with detector_folder.locked(folder), evaluator_errors():
        detector = detector_folder.load(folder, torch.device("cpu"))
        changed = detector.without_class(name)
        detector_folder.save(changed, folder)
    _print_summary(folder, changed, before=detector)
    return 0


@contextmanager
def only_process(config: ComputeOptions) -> Iterator[Process]:
    """This process, on its device; ConfigError where torchrun started several."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("this command runs in one process; start it without torchrun")
    with process_group(config.device) as process:
        yield process


class _Features:
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


@contextmanager
def evaluator_errors() -> Iterator[None]:
    """Turn an EvaluatorError inside into a ConfigError."""
    try:
        yield
    except EvaluatorError as error:
        raise ConfigError(str(error)) from error


def _check_rule(config: FitConfig) -> None:
    """Raise ConfigError where options contradict the evaluator."""
    if config.prototypes_only and config.evaluator not in BY_MEANS:
        raise ConfigError(
            f"{config.evaluator} compares with single references; leave out --prototypes-only, or "
            f"choose from {', '.join(BY_MEANS)}"
        )
    selection = (config.covariance_domains, config.covariance_classes, config.covariance_splits)
    if config.covariance_pack is None and any(selection):
        raise ConfigError("a selection of training images needs their --covariance-pack")
    if config.covariance_pack is not None and config.evaluator != WHITENED_COSINE:
        raise ConfigError(f"--covariance-pack is for --evaluator {WHITENED_COSINE} alone")


def _threshold_set(config: FitConfig, known: LabeledImages) -> LabeledImages | None:
    """The images of known classes in ``--threshold-set``, if that is given."""
    if config.threshold_set is None:
        return None
    given = LabeledImages.open(config.threshold_set, Selection())
    images = given.of_classes(known.classes)
    if not images.found.images:
        raise ConfigError(
            f"the threshold set {config.threshold_set} has no image of a known class; its classes "
            f"are {plain(', '.join(given.classes[:10]))}"
        )
    return images


def _rule(config: FitConfig, features: _Features) -> Rule:
    options = EvaluatorOptions(
        significant=config.significant,
        neighbors=config.neighbors,
        whitening=_whitening(config, features),
    )
    return Rule(config.evaluator, options)


def _whitening(config: FitConfig, features: _Features) -> Whitening | None:
    """The map learned from ``--covariance-pack``, if that is given."""
    if config.covariance_pack is None:
        return None
    pack = Pack(local_folder(config.covariance_pack))
    selection = Selection(
        config.covariance_domains, config.covariance_classes, config.covariance_splits
    )
    extractor = FeatureExtractor(features.network, pack, features.process, features.extraction)
    return learn_whitening(extractor, selection.rows(pack))


def _origin(checkpoint: Checkpoint) -> NetworkOrigin:
    provenance = Provenance.of(checkpoint)
    names = {field.name for field in fields(ModelConfig)}
    saved = checkpoint.setting("model") or {}
    return NetworkOrigin(
        model={name: value for name, value in saved.items() if name in names},
        path=printable(str(provenance.path)),
        step=provenance.step,
        sha256=provenance.sha256,
    )


def _known_classes(known: LabeledImages, references: StoredReferences) -> tuple[KnownClass, ...]:
    counts = torch.bincount(references.labels).tolist()
    source = printable(str(known.source))
    return tuple(
        KnownClass(printable(name), count, source)
        for name, count in zip(known.classes, counts, strict=True)
    )


def _selection(config: SelectionOptions) -> Selection:
    return Selection(config.domains, config.classes, config.splits)


def _preprocessing(config: FitConfig) -> PreprocessingOptions:
    names = [field.name for field in fields(PreprocessingOptions)]
    return PreprocessingOptions(**{name: getattr(config, name) for name in names})


def _print_summary(folder: Path, detector: Detector, before: Detector | None = None) -> None:
    threshold = detector.threshold
    images = sum(known.images for known in detector.classes)
    print(
        f"detector in {plain(str(folder))}: {len(detector.classes)} classes, {images:,} references"
    )
    chosen_on = f"images of {threshold.source}" if threshold.source else "held-out references"
    kept = before is not None and not before.can_rechoose
    print(
        f"threshold: {'kept, ' if kept else ''}normality {threshold.value:.6g} accepts "
        f"{threshold.recall:.0%} of {threshold.images:,} {plain(chosen_on)}"
    )
