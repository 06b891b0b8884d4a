import re
from pathlib import Path
from typing import Any

import torch

from model.config import EVALUATORS

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_documented_example_runs_and_is_short(run_folder, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "imagenet").symlink_to(run_folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "reference_images": torch.randn(6, 3, 48, 48),
        "reference_classes": torch.tensor([0, 1, 0, 1, 0, 1]),
        "held_out_images": torch.randn(4, 3, 48, 48),
        "images": torch.randn(5, 3, 48, 48),
        "my_classifier": lambda images: torch.eye(2)[torch.arange(len(images)) % 2],
    }
    exec(compile(code, str(DOCUMENT), "exec"), names)
    novel = names["normality"] < names["detector"].threshold
    assert torch.equal(names["classes"] == -1, novel)


def test_the_documents_table_has_the_evaluators_in_their_order():
    section = DOCUMENT.read_text().split("## Evaluators")[1].split("##")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name for cell in first_cells for name in re.findall(r"`([a-z-]+)`", cell)]
    assert tuple(named) == EVALUATORS
