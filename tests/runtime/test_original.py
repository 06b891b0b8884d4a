"""Checkpoints go to the original code and back."""

import pytest
import torch

from model.config import ModelConfig
from model.network import build_network
from runtime.__main__ import main
from runtime.checkpoint import load_weights, save
from runtime.original import load_original

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 12}


def network(**changes):
    torch.manual_seed(3)
    return build_network(ModelConfig(**SIZES, **changes))


def as_original(weights):
    """The two state dicts as the original code saves them."""
    extractor = {k[9:]: v for k, v in weights.items() if k.startswith("backbone.")}
    extractor |= {f"model_resnet.{name}": value for name, value in extractor.items()}
    extractor |= {"model_resnet.fc.weight": torch.ones(1000, 512)}
    extractor |= {"model_resnet.fc.bias": torch.ones(1000)}
    return extractor, {k[9:]: v for k, v in weights.items() if k.startswith("relation.")}


def write_layout(layout, weights, folder):
    extractor, relation = as_original(weights)
    if layout == "file":
        prefixed = {f"feature_extractor.{k}": v for k, v in extractor.items()}
        path = folder / "model.pth"
        torch.save(prefixed | {f"cls_rel.{k}": v for k, v in relation.items()}, path)
        return path
    torch.save(extractor, folder / "feature_extractor.pkl", _use_new_zipfile_serialization=False)
    torch.save(relation, folder / "cls_rel.pkl")
    return folder


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("folder", {}),
        ("folder", {"head": "mlp"}),
        ("file", {"head": "mlp"}),
        ("folder", {"num_logits": 2}),
    ],
)
def test_each_original_layout_scores_as_before(tmp_path, layout, changes):
    source = network(**changes).eval()
    path = write_layout(layout, source.state_dict(), tmp_path)
    assert main(["import", str(path), "--out", str(tmp_path / "run")]) == 0
    images = torch.randn(4, 3, 64, 64)
    for read in (load_weights(tmp_path / "run"), load_original(path)):
        imported = build_network(ModelConfig(**read.config["model"])).eval()
        imported.load_state_dict(read.weights)
        with torch.no_grad():
            assert torch.equal(imported(images), source(images))


def test_export_then_import_gives_the_same_bits(tmp_path):
    weights = network().state_dict()
    config = {"model": SIZES | {"backbone": "resnet18"}}
    save(tmp_path / "a", 9, weights=weights, config=config, metrics={})
    assert main(["export", str(tmp_path / "a"), "--out", str(tmp_path / "pkl")]) == 0
    assert main(["import", str(tmp_path / "pkl"), "--out", str(tmp_path / "b")]) == 0
    back = load_weights(tmp_path / "b").weights
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_exported_files_hold_what_the_original_code_loads(tmp_path):
    weights = network().state_dict()
    save(tmp_path / "a", 9, weights=weights, config={}, metrics={})
    main(["export", str(tmp_path / "a"), "--out", str(tmp_path / "pkl")])
    for file, expected in zip(("feature_extractor", "cls_rel"), as_original(weights), strict=True):
        state = torch.load(tmp_path / "pkl" / f"{file}.pkl", weights_only=True)
        assert state.keys() == expected.keys()
        assert all(state[k].shape == expected[k].shape for k in state)


def test_what_cannot_be_exchanged_is_one_line(tmp_path, error_line):
    weights = network(similarity_start=True).state_dict()
    save(tmp_path / "a", 9, weights=weights, config={}, metrics={})
    (tmp_path / "empty").mkdir()
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    out = ["--out", str(tmp_path / "out")]
    for arguments, words in (
        (["export", str(tmp_path / "a"), *out], "similarity start"),
        (["export", str(tmp_path / "none"), *out], "no checkpoint"),
        (["import", str(tmp_path / "empty"), *out], "cannot read"),
        (["import", str(tmp_path / "x.pth"), *out], "not an original checkpoint"),
        (["import", str(tmp_path / "x.pth"), "--out", str(tmp_path / "a")], "already"),
    ):
        assert main(arguments) == 2
        assert words in error_line()
