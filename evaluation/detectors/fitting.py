"""`python -m evaluation fit`: a detector of a network and references."""

from dataclasses import fields, replace

import torch

from evaluation.config import NetworkOptions
from evaluation.detectors import storage
from evaluation.detectors.commands import (
    ReferenceFeatures,
    evaluator_errors,
    only_process,
    print_summary,
    selected,
)
from evaluation.detectors.detector import (
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
from evaluation.detectors.options import FitConfig
from evaluation.detectors.source_images import LabeledImages
from evaluation.evaluator_choice import choose_evaluators
from evaluation.extractor import FeatureExtractor
from evaluation.networks import NamedNetwork, load_networks
from evaluation.report.text import plain
from evaluation.whitening import learn_whitening
from model.config import (
    BY_MEANS,
    WHITENED_COSINE,
    EvaluatorOptions,
    ModelConfig,
    PreprocessingOptions,
)
from model.intermediates import check_distinguishes
from model.whitening import Whitening
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.distributed import Process
from runtime.errors import ConfigError
from runtime.precision import exact_float32
from sharding.arguments import local_folder
from sharding.format.strict_json import printable


@exact_float32()
def fit(config: FitConfig) -> int:
    """Fit a detector and save it; returns the exit status, 1 where an image could not be read.

    Raises:
        UserError: a checkpoint, a pack, a folder or an option cannot be used.
    """
    storage.check_out(config.out, config.overwrite)
    _check_covariance(config)
    known = LabeledImages.open(config.references, selected(config))
    threshold_set = _threshold_set(config, known)
    with only_process(config) as process, evaluator_errors():
        named, evaluator = _network(config, process)
        check_distinguishes(evaluator, len(known.classes))
        network = named.trained
        features = ReferenceFeatures(network, config, process)
        references = features.references(known)
        rule = Rule(evaluator, _evaluator_options(config, features))
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
            origin=_origin(named),
            rule=rule,
            classes=_known_classes(known, references),
            references=references.means() if config.prototypes_only else references,
            threshold=threshold,
        )
    storage.save(detector, config.out)
    print(plain(named.origin))
    if untrained := named.provenance.untrained:
        print(f"warning: untrained, with random weights: {' and '.join(untrained)}")
    print_summary(config.out, detector)
    return features.report()


def _check_covariance(config: FitConfig) -> None:
    """Raise ConfigError where the options of the whitening contradict the others."""
    selection = (config.covariance_domains, config.covariance_classes, config.covariance_splits)
    if config.covariance_pack is None and any(selection):
        raise ConfigError("a selection of training images needs their --covariance-pack")
    if config.covariance_pack is not None and config.evaluator != WHITENED_COSINE:
        raise ConfigError(f"--covariance-pack is for --evaluator {WHITENED_COSINE} alone")


def _network(config: FitConfig, process: Process) -> tuple[NamedNetwork, str]:
    """The network that the options name, and the evaluator for it.

    Raises:
        UserError: it cannot be loaded, or the evaluator cannot be computed for it.
    """
    if config.checkpoint and config.backbone:
        raise ConfigError("a detector has one network; give a --checkpoint or a --backbone")
    given = NetworkOptions(
        checkpoint=(config.checkpoint,) if config.checkpoint else None,
        backbone=(config.backbone,) if config.backbone else None,
        weights=(config.weights,) if config.weights else None,
    )
    networks = load_networks(given, _preprocessing(config), process.device)
    (network,) = networks
    default = "cosine" if network.is_bare else "relation-logit"
    asked = [config.evaluator or default]
    learns = config.covariance_pack is not None
    ((evaluator,),) = choose_evaluators(networks, asked, learns_whitening=learns)
    if config.prototypes_only and evaluator not in BY_MEANS:
        raise ConfigError(
            f"{evaluator} compares with single references; leave out --prototypes-only, or "
            f"choose from {', '.join(BY_MEANS)}"
        )
    return network, evaluator


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


def _evaluator_options(config: FitConfig, features: ReferenceFeatures) -> EvaluatorOptions:
    return EvaluatorOptions(
        significant=config.significant,
        neighbors=config.neighbors,
        whitening=_whitening(config, features),
    )


def _whitening(config: FitConfig, features: ReferenceFeatures) -> Whitening | None:
    """The map learned from ``--covariance-pack``, if that is given."""
    if config.covariance_pack is None:
        return None
    pack = Pack(local_folder(config.covariance_pack))
    selection = Selection(
        config.covariance_domains, config.covariance_classes, config.covariance_splits
    )
    extractor = FeatureExtractor(features.network, pack, features.process, features.extraction)
    return learn_whitening(extractor, selection.rows(pack))


def _origin(network: NamedNetwork) -> NetworkOrigin:
    found = network.provenance
    names = {field.name for field in fields(ModelConfig)}
    saved = {} if network.is_bare else found.config.get("model") or {}
    return NetworkOrigin(
        model={name: value for name, value in saved.items() if name in names}
        | {"backbone": found.backbone},
        bare=network.is_bare,
        path=None if found.path is None else printable(str(found.path)),
        step=found.step,
        sha256=found.sha256,
    )


def _known_classes(known: LabeledImages, references: StoredReferences) -> tuple[KnownClass, ...]:
    counts = torch.bincount(references.labels).tolist()
    source = printable(str(known.source))
    return tuple(
        KnownClass(printable(name), count, source)
        for name, count in zip(known.classes, counts, strict=True)
    )


def _preprocessing(config: FitConfig) -> PreprocessingOptions:
    names = [field.name for field in fields(PreprocessingOptions)]
    return PreprocessingOptions(**{name: getattr(config, name) for name in names})
