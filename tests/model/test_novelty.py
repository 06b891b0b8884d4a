import pytest
import torch

from model.config import ModelConfig, Preprocessing
from model.network import build_network
from model.novelty import NoveltyDetector
from model.transform import prepare


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(ModelConfig(embed_dim=24, depth=1, num_heads=3, similarity_start=True))


def blobs(count: int, *directions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (count, 512) that point along the given axes in turn, and which."""
    classes = torch.arange(count) % len(directions)
    axes = torch.eye(512)[torch.tensor(directions)][classes]
    return axes + 0.01 * torch.randn(count, 512), classes


def test_detector_tells_novel_features_from_known(network):
    references, classes = blobs(30, 0, 1, 2)
    detector = NoveltyDetector(network).fit(references, classes)
    held_out, held_out_classes = blobs(60, 0, 1, 2)
    detector.choose_threshold(held_out, recall=0.95)
    assert detector.is_known(held_out).sum() == 57
    assert not detector.is_known(blobs(10, 3, 4)[0]).any()
    assert torch.equal(detector.score(held_out).predicted, held_out_classes)


def test_images_and_their_features_score_alike(network):
    images = torch.randn(6, 3, 32, 32)
    classes = torch.tensor([0, 0, 0, 1, 1, 1])
    from_images = NoveltyDetector(network, batch_size=4).fit(images, classes)
    features = from_images.features(images)
    from_features = NoveltyDetector(network).fit(features, classes)
    torch.testing.assert_close(
        from_images.score(images).normality, from_features.score(features).normality
    )


def test_images_of_any_size_are_prepared_as_the_network_was_trained():
    torch.manual_seed(0)
    preprocessing = Preprocessing(
        32, (0.5,) * 3, (0.2,) * 3, "bicubic", crop_mode="center", crop_pct=0.9
    )
    network = build_network(
        ModelConfig(embed_dim=24, depth=1, num_heads=3, similarity_start=True), preprocessing
    )
    detector = NoveltyDetector(network, batch_size=2)
    images = [torch.randint(0, 256, (3, *size)).byte() for size in ((40, 50), (90, 33), (32, 32))]
    prepared = torch.stack([prepare(image, preprocessing) for image in images])
    torch.testing.assert_close(detector.features(images), detector.features(prepared))
    detector.fit(images, torch.tensor([0, 1, 1]))
    assert detector.score(images).predicted.tolist() == [0, 1, 1]


def test_steps_in_the_wrong_order_are_refused(network):
    detector = NoveltyDetector(network)
    features, classes = blobs(4, 0, 1)
    with pytest.raises(ValueError, match="call fit first"):
        detector.score(features)
    detector.fit(features, classes)
    with pytest.raises(ValueError, match="call choose_threshold first"):
        detector.is_known(features)
    with pytest.raises(ValueError, match="recall is 0"):
        detector.choose_threshold(features, recall=0)


def test_references_without_classes_are_refused(network):
    with pytest.raises(ValueError, match="2 references have 1 classes"):
        NoveltyDetector(network).fit(torch.ones(2, 512), torch.tensor([0]))
    with pytest.raises(ValueError, match="class 1 has no reference"):
        NoveltyDetector(network).fit(torch.ones(2, 512), torch.tensor([0, 2]))
