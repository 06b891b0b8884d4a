"""The table of exported detectors."""

import sys

from benchmarks import export
from model.config import ModelConfig


def test_a_row_has_the_size_and_the_latency_of_both_models(monkeypatch, capsys):
    tiny = ModelConfig("test_resnet", embed_dim=24, depth=1, num_heads=3)
    monkeypatch.setattr(export, "NETWORKS", {"tiny": tiny})
    monkeypatch.setattr(export, "CLASSES", (2,))
    monkeypatch.setattr(export, "RULES", (("relation-logit", None),))
    monkeypatch.setattr(sys, "argv", ["export", "--rounds", "1", "--seconds", "0.01"])
    export.main()
    *_, row = capsys.readouterr().out.splitlines()
    _, name, evaluator, classes, *numbers, _ = (cell.strip() for cell in row.split("|"))
    assert (name, evaluator, classes) == ("tiny", "relation-logit", "2")
    of_images, of_features, with_backbone, without = map(float, numbers)
    assert of_images > of_features > 0
    assert with_backbone > without > 0
