"""The commands that add a known class to a detector and remove one."""

from pathlib import Path

import torch

from evaluation.detectors import storage
from evaluation.detectors.commands import (
    ReferenceFeatures,
    evaluator_errors,
    only_process,
    print_summary,
    selected,
)
from evaluation.detectors.detector import KnownClass
from evaluation.detectors.options import AddClassConfig
from evaluation.detectors.source_images import images_in
from runtime.precision import exact_float32
from sharding.format.strict_json import printable
from sharding.sources.names import check_name


@exact_float32()
def add_class(folder: Path, name: str, images: Path, config: AddClassConfig) -> int:
    """Add the known class ``name`` to the detector in ``folder``, of which ``images`` are
    references; returns the exit status as ``fit``.

    Raises:
        UserError: the class is there already, or a detector, a pack or a folder cannot be used.
    """
    check_name(name, "NAME")
    with storage.locked(folder), only_process(config) as process, evaluator_errors():
        detector = storage.load(folder, process.device)
        detector.check_is_new(name)
        features = ReferenceFeatures(detector.network, config, process)
        values = features.of(images_in(images, selected(config))).values
        added = KnownClass(name, len(values), printable(str(images)))
        changed = detector.with_class(added, values)
        storage.save(changed, folder)
    print_summary(folder, changed, before=detector)
    return features.report()


@exact_float32()
def remove_class(folder: Path, name: str) -> int:
    """Remove the known class ``name`` from the detector in ``folder``; returns 0.

    Raises:
        UserError: there is no such class, or the detector cannot be read or written.
    """
    with storage.locked(folder), evaluator_errors():
        detector = storage.load(folder, torch.device("cpu"))
        changed = detector.without_class(name)
        storage.save(changed, folder)
    print_summary(folder, changed, before=detector)
    return 0
