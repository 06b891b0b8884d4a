import pytest
import timm
import torch
from timm.data import resolve_model_data_config

from model.backbone import (
    backbone_preprocessing,
    create_backbone,
    feature_dim,
    for_inference,
    resize_input,
)
from model.config import PAPER_PREPROCESSING, Preprocessing
from model.errors import ModelError


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet18.tv_in1k", "resnet18.a1_in1k", "resnet101", "resnet101.tv_in1k"]
)
def test_the_papers_backbones_keep_the_papers_preprocessing(name):
    assert backbone_preprocessing(name) == PAPER_PREPROCESSING
    assert (
        Preprocessing(
            image_size=224,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            interpolation="bilinear",
            crop_mode="squash",
            crop_pct=1.0,
        )
        == PAPER_PREPROCESSING
    )


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "tf_efficientnet_lite0", "mobilenetv4_conv_small", "deit_tiny_patch16_224"],
)
def test_other_backbones_have_timms_preprocessing(name):
    ours, timms = backbone_preprocessing(name), resolve_model_data_config(timm.create_model(name))
    assert ours == Preprocessing(
        timms["input_size"][1],
        timms["mean"],
        timms["std"],
        timms["interpolation"],
        timms["crop_mode"],
        timms["crop_pct"],
    )


def test_each_of_timms_models_has_preprocessing():
    names = timm.list_models(pretrained=True)
    sizes = {backbone_preprocessing(name).image_size for name in names}
    assert len(names) > 1000
    assert {160, 224, 518} <= sizes


def test_a_backbone_is_built_for_the_size_of_the_images():
    backbone = create_backbone("vit_small_patch14_dinov2.lvd142m", image_size=224)
    assert feature_dim(backbone, 224) == 384
    assert backbone.pos_embed.shape[1] == 1 + 16 * 16


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("vit_base_patch16_clip_224.openai", 512),  # after the projection
        ("vit_base_patch16_clip_224", 768),  # by default the weights fine-tuned to classify
        ("mobilenetv4_conv_small", 1280),  # not timm's num_features, which are 960
    ],
)
def test_the_width_is_that_of_the_features(name, width):
    backbone = create_backbone(name, image_size=32).eval()
    assert feature_dim(backbone, 32) == width
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, width)


def test_finding_the_width_changes_nothing():
    backbone = create_backbone("test_convnext").train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    feature_dim(backbone, 64)
    assert backbone.training
    after = backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_position_embeddings_follow_the_size():
    backbone = create_backbone("test_vit", image_size=64).eval()
    small = backbone.pos_embed
    resize_input(backbone, 96)
    assert backbone.pos_embed.shape[1] > small.shape[1]
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 96, 96)).ndim == 2


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b0", "mobilenetv4_conv_small", "convnext_atto", "test_vit"]
)
def test_a_backbone_for_inference_gives_the_same_features(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, image_size=64)
    with torch.no_grad():
        for _ in range(3):  # statistics other than 0 and 1
            backbone.train()(torch.randn(8, 3, 64, 64))
        images = torch.randn(2, 3, 64, 64)
        expected = backbone.eval()(images)
        torch.testing.assert_close(for_inference(backbone)(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("deit_tiny_patch16_224", 40, "not a multiple of the backbone's patches of 16 pixels"),
        ("resnet19", 224, "timm has no model 'resnet19'"),
    ],
)
def test_what_cannot_be_built_is_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        create_backbone(name, image_size=size)


def test_a_tag_that_timm_does_not_know_is_refused():
    with pytest.raises(ModelError, match=r"timm has no weights 'resnet18\.nonsense'"):
        create_backbone("resnet18.nonsense", image_size=32)


def test_overlapping_patches_take_any_size():
    assert feature_dim(create_backbone("pvt_v2_b0", image_size=96), 96) == 256


def test_a_size_that_the_backbone_cannot_take_is_refused():
    with pytest.raises(ValueError, match="does not accept images of 32 pixels"):
        feature_dim(create_backbone("inception_v3", image_size=32), 32)
