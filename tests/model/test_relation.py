import pytest
import torch
from torch.nn import functional

from model.backbone import create_backbone, for_inference
from model.config import ModelConfig
from model.network import Classifier, ReSeND, build_network
from model.relation import RelationalTransformer

BLOCK_PARAMETERS = {
    f"{layer}.{kind}"
    for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
}


def small(**options) -> RelationalTransformer:
    torch.manual_seed(0)
    return RelationalTransformer(
        16, ModelConfig(embed_dim=24, depth=2, num_heads=3, **options)
    ).eval()


def written_out(relation: RelationalTransformer, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The published formula for one pair, from the state dict alone."""
    weights = relation.state_dict()

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        return functional.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6
        )

    x = torch.stack((weights["cls_token"][0, 0], linear("proj", a), linear("proj", b)))
    for number in range(2):
        block = f"blocks.{number}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).view(3, 3, 3, 8).unbind(1)
        mixed = torch.empty(3, 3, 8)
        for head in range(3):
            attention = torch.softmax(q[:, head] @ k[:, head].T / 8**0.5, dim=-1)
            mixed[:, head] = attention @ v[:, head]
        x = x + linear(f"{block}.attn.proj", mixed.flatten(1))
        hidden = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + linear(f"{block}.mlp.fc2", hidden)
    return linear("head", norm("norm", x[0]))[0]


def test_default_relation_has_the_published_number_of_parameters():
    relation = build_network(ModelConfig()).relation
    assert sum(parameter.numel() for parameter in relation.parameters()) == 28_748_545


def test_parameter_names_are_those_of_published_checkpoints():
    names = set(small().state_dict())
    blocks = {f"blocks.{number}.{name}" for number in range(2) for name in BLOCK_PARAMETERS}
    rest = {"cls_token", "proj.weight", "proj.bias", "norm.weight", "norm.bias"}
    assert names == blocks | rest | {"head.weight", "head.bias"}
    two_layers = {name for name in small(head="mlp").state_dict() if name.startswith("head")}
    assert two_layers == {"head.0.weight", "head.0.bias", "head.2.weight"}


def test_logit_equals_the_published_formula():
    relation = small()
    with torch.no_grad():
        for parameter in relation.parameters():
            parameter.normal_(std=0.3)
        a, b = torch.randn(5, 16), torch.randn(5, 16)
        expected = torch.stack([written_out(relation, *pair) for pair in zip(a, b, strict=True)])
        torch.testing.assert_close(relation(a, b), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"head": "mlp"}, {"similarity_start": True}])
def test_logit_is_symmetric_in_its_two_features(options):
    relation = small(**options)
    a, b = torch.randn(7, 16), torch.randn(7, 16)
    torch.testing.assert_close(relation(a, b), relation(b, a))


def test_weights_start_as_published():
    relation = RelationalTransformer(512, ModelConfig())
    for name, weight in relation.named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        elif "norm" in name:
            assert (weight == 1).all()
        elif name != "head.weight":
            assert weight.std().item() == pytest.approx(0.02, rel=0.2)
    norms = [module for module in relation.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 9
    assert all(norm.eps == 1e-6 for norm in norms)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("num_logits", [1, 2])
def test_similarity_start_begins_at_cosine(head, num_logits):
    relation = small(similarity_start=True, head=head, num_logits=num_logits)
    a, b = torch.randn(7, 16), torch.randn(7, 16)
    torch.testing.assert_close(relation(a, b), 5 - 8 * functional.cosine_similarity(a, b))


def test_two_logits_are_returned_as_their_difference():
    relation = small(num_logits=2)
    outputs = []
    relation.head.register_forward_hook(lambda module, given, output: outputs.append(output))
    logits = relation(torch.randn(4, 16), torch.randn(4, 16))
    torch.testing.assert_close(logits, outputs[0][:, 1] - outputs[0][:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 10, "num_heads": 3}, "not a multiple of num_heads"),
        ({"depth": 0}, "model.depth must be a whole number from 1"),
        ({"head": "conv"}, "choose linear or mlp"),
        ({"num_logits": 3}, "model.num_logits must be a whole number from 1 to 2"),
    ],
)
def test_sizes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RelationalTransformer(16, ModelConfig(**options))


def test_network_compares_anchors_with_their_partners():
    network = build_network(ModelConfig(embed_dim=24, depth=1, num_heads=3)).eval()
    assert isinstance(network, ReSeND)
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        features = network.backbone(images)
        expected = network.relation(features[:3], features[3:])
        torch.testing.assert_close(network(images), expected)


def test_classifier_gives_a_logit_a_class():
    network = build_network(ModelConfig(embed_dim=24, depth=1, num_heads=3))
    classifier = Classifier(network.backbone, 512, 5)
    assert classifier(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(ValueError, match="at least 2"):
        Classifier(network.backbone, 512, 1)


def test_folded_backbone_gives_the_same_features():
    backbone = create_backbone("resnet18").eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_buffer("running_var", torch.rand(module.num_features) + 0.5)
            module.register_buffer("running_mean", torch.randn(module.num_features))
    images = torch.randn(2, 3, 64, 64)
    folded = for_inference(backbone)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(images), backbone(images), rtol=1e-4, atol=1e-4)


def test_unknown_backbone_is_refused_with_near_names():
    with pytest.raises(ValueError, match="such as resnet"):
        build_network(ModelConfig(backbone="resnet_18"))
