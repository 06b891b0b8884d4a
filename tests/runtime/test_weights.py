"""Backbone weights come from any of the usual files, strictly."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from runtime.checkpoint import save
from runtime.errors import CheckpointError
from runtime.weights import load_backbone, load_strictly


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return torchvision.models.resnet18().eval()


def resnet():
    return timm.create_model("resnet18", num_classes=0).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_files_give_torchvisions_features(published, tmp_path, suffix):
    path = tmp_path / f"resnet18{suffix}"
    state = published.state_dict()
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    backbone = resnet()
    load_backbone(backbone, path)
    images = torch.randn(2, 3, 64, 64)
    published.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), published(images))


def test_a_run_of_ours_gives_its_backbone(tmp_path):
    source, target = resnet(), resnet()
    weights = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    head = {"head.weight": torch.zeros(3, 512)}
    save(tmp_path, 5, weights=weights | head, config={}, metrics={})
    load_backbone(target, tmp_path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_wrapped_and_parallel_state_dicts_are_opened(tmp_path):
    source, target = resnet(), resnet()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    load_backbone(target, tmp_path / "w.pth")
    assert torch.equal(source.conv1.weight, target.conv1.weight)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_medium_patch16_gap_240"])
def test_position_embeddings_of_another_size_are_interpolated(name, tmp_path):
    """With and without a prefix token, as timm itself resizes the model."""
    source = timm.create_model(name, num_classes=0, img_size=64)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    target = timm.create_model(name, num_classes=0, img_size=96)
    load_backbone(target, tmp_path / "w.pth")
    source.set_input_size(img_size=(96, 96))
    torch.testing.assert_close(target.pos_embed, source.pos_embed)


def test_a_missing_key_file_or_shape_is_one_line(tmp_path):
    state = resnet().state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "less.pth")
    torch.save(state | {"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "broken.pth").write_bytes(b"no")
    for name, words in (
        ("less.pth", "lacks layer1.0.conv1.weight"),
        ("shape.pth", "a different shape of layer1.0.conv1.weight"),
        ("list.pth", "not a state dict"),
        ("broken.pth", "cannot read"),
        ("absent.pth", "no weights at"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            load_backbone(resnet(), tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_extra_key_is_refused():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="unknown other"):
        load_strictly(layer, layer.state_dict() | {"other": torch.zeros(1)}, "x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.fill_(float("nan")), "not finite in weight"),
        (lambda tensor: tensor.clone().fill_(float("inf")), "not finite in weight"),
        (lambda tensor: tensor.to(torch.int8), "different data type in weight"),
    ],
)
def test_weights_that_no_training_leaves_are_refused(change, words):
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(CheckpointError, match=words):
        load_strictly(layer, state | {"weight": change(state["weight"])}, "x")
    assert torch.equal(layer.weight, before)


def test_half_precision_weights_load_into_full_precision():
    layer = torch.nn.Linear(2, 2)
    load_strictly(layer, {k: v.half() for k, v in layer.state_dict().items()}, "x")
    assert layer.weight.dtype == torch.float32
