"""ODIN and Gram matrices against pytorch-ood, whose scores are high for outliers."""

import pytest
import timm
import torch
from pytorch_ood import detector as peers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from model.backbone import with_hidden_layers
from model.classifier import LinearClassifier
from model.classifier_scores import CLASSIFIER_SCORES, Classified
from model.image_scores import GramBounds, ImageStatistics, gram_rows, perturb

K, STD = 3, (0.2, 0.25, 0.3)
GENERATOR = torch.Generator().manual_seed(0)
REFERENCES = torch.randn(24, 3, 8, 8, generator=GENERATOR)
CLASSES = torch.arange(24) % K
TESTS = 1.5 * torch.randn(7, 3, 8, 8, generator=GENERATOR)


@pytest.fixture(scope="module")
def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2), nn.Tanh())  # has negative values
    return [first, second]


@pytest.fixture(scope="module")
def head() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, K))


def of_images(classifier: nn.Linear, images: ImageStatistics) -> Classified:
    nothing = torch.zeros(1, classifier.in_features)
    weights = LinearClassifier(classifier.weight.detach(), classifier.bias.detach())
    return Classified(weights, nothing, torch.zeros(1).long(), nothing, images)


def test_odin_perturbs_and_scores_as_pytorch_ood(layers, head):
    pool, classifier = nn.Sequential(*layers, *head[:-1]), head[-1]
    network = nn.Sequential(pool, classifier)
    with torch.no_grad():  # as in an evaluation
        moved = perturb(network, TESTS, STD)
        scores = CLASSIFIER_SCORES["odin"](of_images(classifier, ImageStatistics(pool(moved))))
    peer = peers.ODIN(network, eps=0.001, temperature=1000, norm_std=list(STD))
    torch.testing.assert_close(scores, -peer.predict(TESTS), rtol=0, atol=1e-7)
    step = (moved - TESTS).abs().amax(dim=(0, 2, 3))
    torch.testing.assert_close(step, 0.001 / torch.tensor(STD), rtol=1e-3, atol=0)


def test_gram_deviates_as_in_pytorch_ood(layers, head):
    peer = peers.Gram(head, layers, K, num_poles_list=range(1, 11))
    peer.validation_fraction = 0  # the unit of a deviation is then 1
    peer.fit(DataLoader(TensorDataset(REFERENCES, CLASSES), batch_size=5))
    expected = -peer.predict(TESTS)

    def rows(images: torch.Tensor) -> list[torch.Tensor]:
        first = layers[0](images)
        return [gram_rows(maps) for maps in (first, layers[1](first))]

    with torch.no_grad():
        bounds = GramBounds(K, [50, 60], torch.device("cpu"))
        for images, classes in zip(REFERENCES.split(7), CLASSES.split(7)):
            bounds.add(rows(images), classes)
        predicted = nn.Sequential(*layers, head)(TESTS).argmax(dim=1)
        deviations = bounds.deviations(rows(TESTS), predicted)
        scores = CLASSIFIER_SCORES["gram"](
            of_images(head[-1], ImageStatistics(deviations=deviations))
        )
    assert deviations.shape == (7, 2)
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


def test_gram_rows_are_those_of_the_whole_matrices_of_any_scale():
    maps = 5e3 * torch.randn(2, 4, 3, 3, generator=GENERATOR)
    flat, expected = maps.double().flatten(2), []
    for power in range(1, 11):
        sums = (flat**power @ (flat**power).transpose(1, 2)).sum(dim=2)
        expected.append(sums.sign() * sums.abs() ** (1 / power))
    torch.testing.assert_close(gram_rows(maps).double(), torch.cat(expected, 1), rtol=1e-4, atol=0)
    assert not gram_rows(torch.zeros(1, 4, 3, 3)).any()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_features_beside_the_hidden_layers_are_those_of_the_backbone(name):
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=0).eval()
    images = torch.randn(2, 3, 160, 160, generator=GENERATOR)
    with torch.no_grad():
        features, maps = with_hidden_layers(backbone, images)
        torch.testing.assert_close(features, backbone(images))
    assert len(maps) > 1
    assert all(layer.ndim == 4 and len(layer) == 2 for layer in maps)
