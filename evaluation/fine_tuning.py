"""Trains a backbone and a linear classifier on the references of a target."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.extractor import FeatureExtractor
from evaluation.trained import TrainedNetwork
from model.backbone import for_inference
from model.classifier import BATCH_SIZE, LinearClassifier, draw_batches, sgd, zero_layer
from model.errors import EvaluatorError
from runtime.distributed import Process
from runtime.errors import ConfigError
from runtime.gather import chunk_of


@dataclass(frozen=True)
class FineTuned:
    """A classifier of the known classes that was trained with its backbone.

    Attributes:
        extractor: of the trained backbone's features; it keeps none of them.
        classifier: on these features.
    """

    extractor: FeatureExtractor
    classifier: LinearClassifier


def fine_tune(
    extractor: FeatureExtractor, rows: np.ndarray, classes: Tensor, num_classes: int, steps: int
) -> FineTuned:
    """Train a copy of the extractor's backbone and a linear layer by ``model.classifier``'s recipe.

    The images are those of evaluation, without augmentation, and BatchNorm keeps its statistics.
    Every process computes the gradient of its share of each step; all return the same classifier,
    whatever their number, but for rounding.

    Args:
        extractor: of the pack of the references.
        rows: int64 (R,), the references.
        classes: int64 (R,) on the process's device, their classes 0 .. K-1.
        num_classes: K.
        steps: of ``BATCH_SIZE`` references.

    Raises:
        ConfigError: there are more processes than references in a step.
        EvaluatorError: there is only one class, or the training has diverged.
        PackError: an image is damaged.
    """
    process = extractor.process
    drawn = draw_batches(len(rows), steps)[:, _share(process)]
    size = drawn.shape[1]
    network = copy.deepcopy(extractor.network.network).eval()
    backbone = network.backbone.requires_grad_()
    layer = zero_layer(extractor.width, num_classes).to(process.device)
    parameters = [*backbone.parameters(), *layer.parameters()]
    optimizer = sgd(parameters)
    labels = classes[drawn.flatten().to(classes.device)]
    part = _largest_divisor(size, extractor.config.batch_size)
    source = replace(extractor, config=replace(extractor.config, batch_size=part))
    with torch.enable_grad():
        for places, images in source.images(rows[drawn.flatten().numpy()], "fine-tuning"):
            with extractor.autocast():  # which keeps the weights that it has cast until it ends
                logits = layer(backbone(images))
            loss = functional.cross_entropy(logits.float(), labels[places], reduction="sum")
            (loss / BATCH_SIZE).backward()
            if places.stop % size == 0:
                _sum_gradients(parameters, process)
                optimizer.step()
                optimizer.zero_grad()
    _check_finite(parameters)
    network.requires_grad_(False)
    trained = TrainedNetwork(network, for_inference(backbone).to(memory_format=torch.channels_last))
    return FineTuned(
        replace(extractor, network=trained, cache=None),
        LinearClassifier(layer.weight.detach(), layer.bias.detach()),
    )


def _share(process: Process) -> slice:
    """Which references of a step the process takes."""
    if process.world_size > BATCH_SIZE:
        raise ConfigError(
            f"--classifier full divides {BATCH_SIZE} references among {process.world_size} "
            f"processes; start at most {BATCH_SIZE}"
        )
    return chunk_of(BATCH_SIZE, process).slice


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit``."""
    return next(part for part in range(min(number, limit), 0, -1) if number % part == 0)


def _sum_gradients(parameters: Iterable[nn.Parameter], process: Process) -> None:
    """Replace every gradient with its sum over all processes."""
    if process.world_size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = process.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, values in zip(
        gradients, total.split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(values.view_as(gradient))


def _check_finite(parameters: Iterable[nn.Parameter]) -> None:
    if not all(torch.isfinite(parameter).all() for parameter in parameters):
        raise EvaluatorError(
            "fine-tuning has diverged to NaN or infinite weights; lower --budget, or use "
            "--classifier head"
        )
