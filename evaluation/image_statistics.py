"""What odin and gram need of the images of a target, computed by a classifier that was trained with
its backbone."""

from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import Tensor

from evaluation.fine_tuning import FineTuned
from evaluation.protocol import ProtocolRows
from model.backbone import with_hidden_layers
from model.errors import ModelError
from model.image_scores import GramBounds, ImageStatistics, gram_rows, perturb
from runtime.errors import ConfigError
from runtime.gather import chunk_of

_HELD_OUT = 10  # one of so many references of a class


def image_statistics(
    tuned: FineTuned, rows: ProtocolRows, own_tests: np.ndarray, evaluators: Collection[str]
) -> ImageStatistics:
    """Of the tests ``own_tests``, int64 (n,), what those of ``evaluators`` need; all processes call
    it.

    Raises:
        ConfigError: timm does not know the hidden layers of the backbone.
        PackError: an image is damaged.
    """
    perturbed = _perturbed_features(tuned, own_tests) if "odin" in evaluators else None
    deviations = _gram_deviations(tuned, rows, own_tests) if "gram" in evaluators else None
    return ImageStatistics(perturbed, deviations)


def _perturbed_features(tuned: FineTuned, rows: np.ndarray) -> Tensor:
    """Features (n, D) of the images at ``rows`` after ODIN's step."""
    extractor = tuned.extractor
    network = extractor.network.network
    values = torch.zeros(len(rows), extractor.width, device=extractor.process.device)
    with torch.no_grad(), extractor.autocast():
        for places, images in extractor.images(rows, "odin"):
            moved = perturb(
                lambda images: tuned.classifier.logits(network.backbone(images)),
                images.float(),
                network.preprocessing.std,
            )
            values[places] = extractor.network.extractor(moved).float()
    return values


def _gram_deviations(tuned: FineTuned, rows: ProtocolRows, own_tests: np.ndarray) -> Tensor:
    """Deviations (n, L) of the tests, in units of what is expected of known images.

    The bounds are those of the references but for every tenth of a class. The mean deviation of
    these is the unit of a layer, or 1 where it is 0 or there are none.
    """
    process, num_classes = tuned.extractor.process, len(tuned.classifier.bias)
    held_out = _every_tenth(rows.reference_class)
    bounds = GramBounds(num_classes, _layer_widths(tuned), process.device)
    own = chunk_of(int((~held_out).sum()), process).slice
    classes = torch.from_numpy(rows.reference_class[~held_out][own]).to(process.device)
    for places, layers, _ in _gram_rows(tuned, rows.reference[~held_out][own]):
        bounds.add(layers, classes[places])
    for low, high in zip(bounds.low, bounds.high, strict=True):
        process.maximum_(high)
        low.copy_(-process.maximum_(-low))
    own = chunk_of(int(held_out.sum()), process).slice
    known = _deviations(tuned, bounds, rows.reference[held_out][own])
    unit = process.sum_(known.sum(dim=0)) / max(1, int(held_out.sum()))
    return _deviations(tuned, bounds, own_tests) / torch.where(unit > 0, unit, 1)


def _every_tenth(classes: np.ndarray) -> np.ndarray:
    """Bool (R,), every tenth of the references of a class, int64 (R,)."""
    chosen = np.zeros(len(classes), dtype=bool)
    for number in np.unique(classes):
        chosen[np.flatnonzero(classes == number)[_HELD_OUT - 1 :: _HELD_OUT]] = True
    return chosen


def _deviations(tuned: FineTuned, bounds: GramBounds, rows: np.ndarray) -> Tensor:
    """(n, L), of the images at ``rows`` from the bounds of the classes that they are taken for."""
    found = torch.zeros(len(rows), len(bounds.low), device=tuned.extractor.process.device)
    for places, layers, predicted in _gram_rows(tuned, rows):
        found[places] = bounds.deviations(layers, predicted)
    return found


def _gram_rows(tuned: FineTuned, rows: np.ndarray) -> Iterator[tuple[slice, list[Tensor], Tensor]]:
    """Batches of the images at ``rows``: which of them, the Gram row sums (b, 10 C) of each hidden
    layer, and the predicted classes, int64 (b,)."""
    backbone = tuned.extractor.network.network.backbone
    for places, images in tuned.extractor.images(rows, "gram"):
        with torch.no_grad(), tuned.extractor.autocast():
            features, maps = with_hidden_layers(backbone, images)
        logits = tuned.classifier.logits(features.float())
        yield places, [gram_rows(layer) for layer in maps], logits.argmax(dim=1)


def _layer_widths(tuned: FineTuned) -> list[int]:
    """10 C of each hidden layer; ConfigError where timm does not know the layers."""
    network = tuned.extractor.network.network
    size = network.preprocessing.image_size
    image = torch.zeros(1, 3, size, size, device=tuned.extractor.process.device)
    try:
        with torch.no_grad():
            _, maps = with_hidden_layers(network.backbone, image)
    except ModelError as error:
        raise ConfigError(f"{error}; leave out gram") from error
    return [gram_rows(layer).shape[1] for layer in maps]
