import math

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch.nn import functional

from model.config import ModelConfig
from model.errors import ModelError
from model.prototypes import class_means
from model.relation import RelationalTransformer
from model.whitening import ResidualMoments, Whitening, ledoit_wolf, whitening

K, D, N = 4, 6, 40
GENERATOR = torch.Generator().manual_seed(0)
CLASSES = torch.arange(N) % K
FEATURES = torch.randn(N, D, generator=GENERATOR) @ torch.randn(D, D, generator=GENERATOR) + 3


def moments_of(features=FEATURES, classes=CLASSES) -> ResidualMoments:
    means = class_means(features, classes, int(classes.max()) + 1)
    return ResidualMoments.of(features, classes, means)


def learned(features=FEATURES, classes=CLASSES) -> Whitening:
    return whitening(features.mean(dim=0), moments_of(features, classes))


def residuals(features, classes) -> np.ndarray:
    rows = [
        feature - features[classes == number].mean(dim=0)
        for feature, number in zip(features.double(), classes, strict=True)
    ]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(("n", "width"), [(40, 6), (9, 30), (200, 3)])
def test_the_covariance_is_that_of_scikit_learn(n, width):
    features, classes = torch.randn(n, width) * torch.rand(width), torch.arange(n) % 3
    expected = LedoitWolf(assume_centered=True).fit(residuals(features, classes)).covariance_
    found = ledoit_wolf(moments_of(features, classes))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_the_moments_of_parts_add_up_to_those_of_all():
    means = class_means(FEATURES, CLASSES, K)
    first, second = (
        ResidualMoments.of(FEATURES[part], CLASSES[part], means)
        for part in (slice(0, 7), slice(7, N))
    )
    together = moments_of()
    for name in ("count", "scatter", "fourth"):
        torch.testing.assert_close(
            getattr(first, name) + getattr(second, name), getattr(together, name)
        )


def test_cosine_after_whitening_equals_the_formula_written_out():
    covariance = LedoitWolf(assume_centered=True).fit(residuals(FEATURES, CLASSES)).covariance_
    mean = FEATURES.double().mean(dim=0).numpy()
    inverse = np.linalg.inv(covariance)  # <x, y> = (x - mean) W^-1 (y - mean), for any root of W

    def product(x, y):
        return (x.double().numpy() - mean) @ inverse @ (y.double().numpy() - mean)

    a, b = FEATURES[3], FEATURES[11]
    expected = product(a, b) / math.sqrt(product(a, a) * product(b, b))
    whiten = learned()
    found = functional.cosine_similarity(whiten(a[None]), whiten(b[None]))
    assert found.item() == pytest.approx(expected, abs=1e-5)


def similarities(features, classes=CLASSES) -> torch.Tensor:
    directions = functional.normalize(learned(features, classes)(features[:20]), dim=1)
    return directions @ directions.T


ROTATION = torch.linalg.qr(torch.randn(D, D, generator=GENERATOR)).Q


@pytest.mark.parametrize(
    "change", [lambda x: x @ ROTATION, lambda x: 1e-4 * x, lambda x: 1e4 * x, lambda x: x + 10]
)
def test_rotation_unit_and_origin_of_the_features_do_not_matter(change):
    expected = similarities(FEATURES)
    torch.testing.assert_close(similarities(change(FEATURES)), expected, atol=1e-4, rtol=0)


def test_directions_of_any_spread_weigh_the_same():
    classes = torch.arange(4000) % K
    features = torch.randn(4000, D, generator=GENERATOR)
    stretched = features * torch.tensor([1.0, 2, 3, 1, 2, 3])
    torch.testing.assert_close(
        similarities(stretched, classes), similarities(features, classes), atol=0.05, rtol=0
    )


@pytest.mark.parametrize(
    ("features", "classes"),
    [
        (FEATURES[:K], CLASSES[:K]),  # one image of each class
        (torch.ones(N, D), CLASSES),
        (FEATURES[:2], torch.zeros(2, dtype=torch.int64)),  # one difference
    ],
)
def test_features_without_a_covariance_are_refused(features, classes):
    with pytest.raises(ModelError, match="give more images of each class"):
        learned(features, classes)


@pytest.mark.parametrize(
    "features",
    [
        torch.cat((FEATURES, torch.zeros(N, 2)), dim=1),  # dead channels
        torch.cat((FEATURES, FEATURES), dim=1),  # singular
        torch.randn(N, 100, generator=GENERATOR),  # fewer images than dimensions
    ],
)
def test_shrinkage_keeps_singular_features_finite(features):
    whitened = learned(features)(features)
    assert whitened.isfinite().all()
    assert whitened.abs().max() < 1e4


def test_one_class_is_enough():
    assert learned(FEATURES, torch.zeros(N, dtype=torch.int64)).matrix.isfinite().all()


def start(**options) -> RelationalTransformer:
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=24, depth=1, num_heads=3, similarity_start="whitened", **options)
    return RelationalTransformer(D, config).eval()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_whitened_start_begins_at_cosine_after_the_map(head):
    relation = start(head=head)
    relation.whitening.load_state_dict(learned().state_dict())
    a, b = FEATURES[:7], FEATURES[7:14]
    expected = 5 - 8 * functional.cosine_similarity(learned()(a), learned()(b))
    torch.testing.assert_close(relation(a, b), expected)
    torch.testing.assert_close(relation(b, a), expected)


def test_the_other_initial_weights_are_those_of_the_cosine_start():
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=24, depth=1, num_heads=3, similarity_start="cosine")
    cosine, whitened = RelationalTransformer(D, config).state_dict(), start().state_dict()
    assert set(whitened) - set(cosine) == {"whitening.mean", "whitening.matrix"}
    for name, tensor in cosine.items():
        assert torch.equal(tensor, whitened[name])


def test_the_map_stays_float32_under_autocast():
    whiten = learned()
    rounded = FEATURES.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = whiten(rounded)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whiten(rounded.float()))


def test_a_whitened_start_compiles_to_one_graph():
    relation = start()
    relation.whitening.load_state_dict(learned().state_dict())
    compiled = torch.compile(relation, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = relation(FEATURES[:7], FEATURES[7:14])
        torch.testing.assert_close(compiled(FEATURES[:7], FEATURES[7:14]), expected)


def test_true_means_cosine_and_other_words_are_refused():
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=24, depth=1, num_heads=3, similarity_start=True)
    names = RelationalTransformer(D, config).state_dict()
    assert "similarity_scale" in names
    assert "whitening.matrix" not in names
    for word in ("white", 2, [], None):
        with pytest.raises(ModelError, match="choose false, cosine or whitened"):
            ModelConfig(similarity_start=word)
