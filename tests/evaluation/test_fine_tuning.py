"""A classifier that is trained with its backbone on the references of each target."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_ood import detector as peers
from torch import nn
from torch.nn import functional

import evaluate
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.fine_tuning import fine_tune
from evaluation.image_statistics import image_statistics
from evaluation.protocol import Protocol
from evaluation.trained import load_network
from model.backbone import with_hidden_layers
from model.classifier import draw_batches
from model.errors import EvaluatorError
from model.image_scores import gram_rows
from pipelines.config import InputConfig
from pipelines.pack import Pack
from runtime.errors import ConfigError
from tests.evaluation.conftest import ALONE
from tests.evaluation.scores import scores

STEPS = 2
LEARNING_RATE = 0.5  # in place of 0.003, so that two steps move the backbone


@pytest.fixture(scope="module")
def extractor(run_folder, pack_path):
    config = ExtractionConfig(InputConfig(device="cpu"), batch_size=16)
    return FeatureExtractor(load_network(run_folder, ALONE.device), Pack(pack_path), ALONE, config)


@pytest.fixture(scope="module")
def rows(extractor, protocol_file):
    protocol = Protocol.load(protocol_file)
    return protocol.rows(extractor.pack, protocol.target("day"))


def tune(extractor, rows, learning_rate=LEARNING_RATE):
    classes = torch.from_numpy(rows.reference_class)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.classifier._LEARNING_RATE", learning_rate)
        return fine_tune(extractor, rows.reference, classes, 3, STEPS)


@pytest.fixture(scope="module")
def tuned(extractor, rows):
    return tune(extractor, rows)


def images_of(extractor, rows) -> torch.Tensor:
    return torch.cat([images for _, images in extractor.images(rows, "images")])


def test_it_trains_the_backbone_and_the_layer_as_whole_batches_do(extractor, rows, tuned):
    images, classes = images_of(extractor, rows.reference), torch.from_numpy(rows.reference_class)
    backbone = copy.deepcopy(extractor.network.network.backbone).eval().requires_grad_()
    layer = nn.Linear(extractor.width, 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    parameters = [*backbone.parameters(), *layer.parameters()]
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in draw_batches(len(images), STEPS):
        loss = functional.cross_entropy(layer(backbone(images[batch])), classes[batch])
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, velocity, gradient in zip(parameters, velocities, gradients):
            velocity.mul_(0.9).add_(gradient + 5e-4 * parameter.detach())
            parameter.data -= LEARNING_RATE * velocity
    torch.testing.assert_close(tuned.classifier.weight, layer.weight.data, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        expected = backbone(images)
    torch.testing.assert_close(tuned.extractor.run(rows.reference), expected, rtol=1e-3, atol=1e-5)


def test_a_lower_precision_trains_the_same_but_for_rounding(extractor, rows, tuned):
    config = replace(extractor.config, precision="bfloat16")
    rounded = tune(replace(extractor, config=config), rows).extractor
    exact, given = (e.run(rows.reference) for e in (tuned.extractor, extractor))
    found = replace(rounded, config=extractor.config).run(rows.reference)
    assert (found - exact).norm() < 0.2 * (exact - given).norm()
    assert (exact - given).norm() > 0.01 * given.norm()


def test_the_network_that_was_given_is_not_changed(extractor, tuned, run_folder):
    fresh = load_network(run_folder, ALONE.device).network.state_dict()
    for name, values in extractor.network.network.state_dict().items():
        assert torch.equal(values, fresh[name])


def gram_layers(tuned, rows) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The Gram row sums of the images in each hidden layer, and their predicted classes."""
    with torch.no_grad():
        images = images_of(tuned.extractor, rows)
        features, maps = with_hidden_layers(tuned.extractor.network.network.backbone, images)
    return [gram_rows(layer) for layer in maps], tuned.classifier.logits(features).argmax(dim=1)


def test_gram_units_are_the_deviations_of_every_tenth_reference_of_a_class(rows, tuned):
    references, classes = np.arange(33), np.repeat(np.arange(3), 11)
    tests, held_out = np.arange(40, 46), np.array([9, 20, 31])
    given = replace(rows, reference=references, reference_class=classes)
    found = image_statistics(tuned, given, tests, ["gram"]).deviations

    inside, _ = gram_layers(tuned, np.delete(references, held_out))
    of_class = torch.from_numpy(np.delete(classes, held_out))
    sums, predicted = gram_layers(tuned, np.concatenate((held_out, tests)))
    for layer, (image_sums, known) in enumerate(zip(sums, inside)):
        low, high = (
            torch.stack([getattr(known[of_class == k], end)(dim=0) for k in range(3)])[predicted]
            for end in ("amin", "amax")
        )
        deviations = peers.Gram._deviation(image_sums, low, high)
        expected = deviations[3:] / deviations[:3].mean()
        torch.testing.assert_close(found[:, layer], expected, rtol=1e-2, atol=1e-3)


def test_odin_raises_the_largest_probability(extractor, rows, tuned):
    own = rows.test[:6]
    moved = tuned.classifier.logits(image_statistics(tuned, rows, own, ["odin"]).perturbed)
    plain = tuned.classifier.logits(tuned.extractor.run(own))
    largest, at = plain.log_softmax(dim=1).max(dim=1)
    assert (moved.log_softmax(dim=1).gather(1, at[:, None])[:, 0] > largest).all()


def test_other_evaluators_see_the_backbone_that_was_given(arguments, tmp_path):
    options = {"target": "day", "budget": 1, "batch_size": 32}
    names = "odin cosine msp gram"
    assert evaluate.main(arguments("full", evaluators=names, classifier="full", **options)) == 0
    assert evaluate.main(arguments("bare", evaluators="cosine", **options)) == 0
    full, bare = scores(tmp_path / "full"), scores(tmp_path / "bare")
    columns = [name for name in full if name.endswith(".normality")]
    assert columns == [f"{name}.normality" for name in names.split()]
    np.testing.assert_array_equal(full["cosine.normality"], bare["cosine.normality"])


def test_a_training_that_diverges_is_refused(extractor, rows):
    with pytest.raises(EvaluatorError, match="fine-tuning has diverged"):
        tune(extractor, rows, 1e38)


def test_more_processes_than_references_of_a_step_are_refused(extractor, rows):
    many = replace(extractor, process=replace(ALONE, world_size=65))
    with pytest.raises(ConfigError, match="64 references among 65 processes"):
        tune(many, rows)


@pytest.mark.parametrize("name", ["odin", "gram"])
def test_what_reads_images_is_refused_with_a_head_alone(arguments, name, refusal):
    line = refusal(arguments(evaluators=name, classifier="head"))
    assert f"{name} reads gradients or hidden layers" in line
    assert "add --classifier full" in line
