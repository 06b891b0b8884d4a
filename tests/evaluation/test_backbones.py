"""Backbones of each kind, from building to evaluation, without any download."""

import json

import pytest
import torch

import evaluate
import train_ddp
from evaluation.trained import load_network
from model.backbone import backbone_preprocessing
from model.config import PreprocessingOptions

SIZES = {
    "resnet18": 32,
    "convnext_atto": 32,
    "efficientnet_b0": 32,
    "tf_efficientnet_lite0": 32,
    "deit_tiny_patch16_224": 32,
    "vit_small_patch14_dinov2": 28,
    "vit_base_patch16_clip_224": 32,
    "mobilenetv4_conv_small": 32,
}


def train(backbone, pack_path, out, *options):
    return train_ddp.main(
        [
            f"--data.pack={pack_path}",
            f"--out={out}",
            f"--model.backbone={backbone}",
            "--input.device=cpu",
            "--input.num_threads=1",
            "--model.embed_dim=24",
            "--model.depth=1",
            "--model.num_heads=3",
            "--optimizer.name=sgd",
            "--train.iterations=1",
            "--train.global_batch=2",
            "--log.tensorboard=false",
            *options,
        ]
    )


@pytest.mark.parametrize("backbone", SIZES)
def test_a_backbone_trains_and_is_evaluated(backbone, pack_path, protocol_file, tmp_path):
    size, run = SIZES[backbone], tmp_path / "run"
    assert train(backbone, pack_path, run, f"--input.image_size={size}") == 0
    options = ["--protocol", str(protocol_file), "--pack", str(pack_path), "--checkpoint", str(run)]
    options += ["--out", str(tmp_path / "results"), "--resamples", "10", "--device", "cpu"]
    assert evaluate.main([*options, "--cache", str(tmp_path / "cache")]) == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    own = backbone_preprocessing(backbone)
    used = results["networks"][0]["preprocessing"]
    assert used["image_size"] == size
    assert used["mean"] == list(own.mean)
    assert used["interpolation"] == own.interpolation
    assert used["crop_mode"] == own.crop_mode


def test_the_preprocessing_is_shown_saved_and_overridden(pack_path, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--input.image_size=32", "--input.crop_mode=squash", "--input.std=[0.2,0.3,0.4]")
    assert train("tf_efficientnet_lite0", pack_path, run, *options, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "interpolation: bicubic" in shown
    assert "input: 32 x 32 pixels, bicubic, evaluated with crop_mode squash" in shown
    assert train("tf_efficientnet_lite0", pack_path, run, *options) == 0
    saved = load_network(run, torch.device("cpu")).network.preprocessing
    assert (saved.mean, saved.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
    assert (saved.crop_mode, saved.crop_pct) == ("squash", 0.875)
    changed = PreprocessingOptions(mean=(0.1, 0.1, 0.1))
    network = load_network(run, torch.device("cpu"), changed).network
    assert network.preprocessing == changed.applied_to(saved)


def test_a_run_is_not_continued_with_other_preprocessing(pack_path, tmp_path, error_line):
    run = tmp_path / "run"
    assert train("test_resnet", pack_path, run, "--input.image_size=32") == 0
    options = ("--input.image_size=32", "--train.iterations=2")
    assert train("test_resnet", pack_path, run, *options, "--input.crop_mode=squash") == 2
    assert "input.crop_mode" in error_line()
    assert train("test_resnet", pack_path, run, *options) == 0


def test_a_transformer_is_evaluated_at_another_size(pack_path, tmp_path):
    run = tmp_path / "run"
    assert train("deit_tiny_patch16_224", pack_path, run, "--input.image_size=32") == 0
    larger = PreprocessingOptions(image_size=64)
    network = load_network(run, torch.device("cpu"), larger).network
    assert network.backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 192)


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("deit_tiny_patch16_224", 40, "choose 32 or 48"),
        ("inception_v3", 32, "does not accept images of 32 pixels"),
        ("resnet19", 32, "timm has no model 'resnet19'"),
    ],
)
def test_an_impossible_backbone_or_size_is_one_line(
    backbone, size, message, pack_path, tmp_path, error_line
):
    assert train(backbone, pack_path, tmp_path / "run", f"--input.image_size={size}") == 2
    assert message in error_line()
