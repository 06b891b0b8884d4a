"""The loss of pairs that share images: in parts and all at once, against each pair on its own."""

import pytest
import torch
from torch import nn

from model.config import ModelConfig, ObjectiveConfig, Preprocessing
from model.network import ReSeND, build_network
from model.objectives import build_objective
from model.relation import RelationalTransformer
from model.shared_head import with_means
from pipelines.class_plan import ClassPlan
from pipelines.config import SamplingConfig
from tests.common import TINY_MODEL
from tests.memory import PeakMemory
from training.pair_loss import PairLoss

NUM_PAIRS = 72


@pytest.fixture
def batch():
    """Images, left, right, different: 4 classes of 3 images, 2 negatives, means of up to 2."""
    labels = torch.arange(5).repeat_interleave(4).numpy()
    sampling = SamplingConfig("classes", 4, 3, 2, mean_partners=True)
    pairs = ClassPlan(labels, labels * 0, sampling, seed=0).pairs(0, 2)
    torch.manual_seed(1)
    places = [torch.from_numpy(x) for x in (pairs.left, pairs.right, pairs.different)]
    assert len(places[0]) == NUM_PAIRS
    return torch.randn(24, 3, 32, 32), *places


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = ModelConfig(**TINY_MODEL | {"depth": 2}, similarity_start=True)
    made = build_network(model, Preprocessing(image_size=32))
    nn.init.normal_(made.relation.head.weight, std=0.1)
    return made.train()


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


OBJECTIVE = build_objective(ObjectiveConfig("bce"))


@pytest.mark.parametrize("at_once", [None, 1, 7, 71, 72, 1000])
def test_any_number_at_once_gives_loss_and_gradients_of_the_plain_forward(network, batch, at_once):
    images, left, right, different = batch
    features = with_means(network.backbone(images), 3)
    plain = network.relation(features[left], features[right])
    expected_loss = OBJECTIVE(plain, different)
    expected = gradients(network, expected_loss)
    loss, logits, _ = PairLoss(network, OBJECTIVE, 3, at_once)(images, left, right, different)
    found = gradients(network, loss)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, plain.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_bfloat16_in_parts_is_near_bfloat16_at_once(network, batch):
    found = []
    for at_once in (None, 10):
        with torch.autocast("cpu", torch.bfloat16):
            loss, logits, _ = PairLoss(network, OBJECTIVE, 3, at_once)(*batch)
        assert (loss.dtype, logits.dtype) == (torch.float32, torch.float32)
        found.append((loss.detach(), gradients(network, loss)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-3, rtol=1e-3)
    for name, gradient in found[0][1].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[1][1][name], gradient, atol=0.03 * scale + 1e-6, rtol=0)


def test_memory_is_bounded_by_the_pairs_at_once():
    torch.manual_seed(0)
    model = ModelConfig(embed_dim=96, depth=2, num_heads=3)
    network = ReSeND(nn.Identity(), RelationalTransformer(16, model), Preprocessing())
    peaks = {}
    for num_pairs, at_once in ((1024, None), (256, None), (1024, 256)):
        left, right = torch.randint(0, 20, (2, num_pairs))
        features = torch.randn(20, 16, requires_grad=True)
        with PeakMemory() as peak:
            module = PairLoss(network, OBJECTIVE, None, at_once)
            module(features, left, right, left != right)[0].backward()
        network.zero_grad()
        peaks[num_pairs, at_once] = peak.bytes
    assert peaks[1024, 256] < 1.3 * peaks[256, None] < 0.5 * peaks[1024, None]
