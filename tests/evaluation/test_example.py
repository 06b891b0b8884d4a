import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

import evaluate
from model.config import EVALUATORS
from pipelines.selection import Selection
from sharding.__main__ import main as sharding
from sharding.format.manifest import Manifest

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
PROTOCOLS = DOCUMENT.with_name("protocols.md")


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


def test_the_documented_protocol_is_evaluated(pack_path, run_folder, tmp_path):
    text, *_ = re.findall(r"```yaml\n(.*?)```", PROTOCOLS.read_text(), re.DOTALL)
    (tmp_path / "protocol.yaml").write_text(text)
    words = ["--protocol", tmp_path / "protocol.yaml", "--pack", pack_path, "--device", "cpu"]
    words += ["--checkpoint", run_folder, "--out", tmp_path / "out", "--no-cache"]
    assert evaluate.main([str(word) for word in words]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    night, day = (target["counts"] for target in results["benchmarks"][0]["targets"])
    assert night == {"references": 18, "tests": 30, "known": 18, "unknown": 12}
    # 70 % of 6 images are 4, of each of 3 known classes.
    assert day == {"references": 12, "tests": 18, "known": 6, "unknown": 12}


def test_the_documented_protocol_of_lists_is_evaluated(pack_path, run_folder, tmp_path):
    _, text, *_ = re.findall(r"```yaml\n(.*?)```", PROTOCOLS.read_text(), re.DOTALL)
    (tmp_path / "listed.yaml").write_text(text)
    for order, classes in enumerate(("ant bee cat dog eel", "eel dog cat bee ant")):
        for domain, count in (("day", 3), ("night", 5)):
            lines = [
                f"animals/{domain}/{class_}/{image}.jpg {label}\n"
                for label, class_ in enumerate(classes.split()[:count])
                for image in range(6)
            ]
            (tmp_path / f"{domain}_{order}.txt").write_text("".join(lines))
    words = ["--protocol", tmp_path / "listed.yaml", "--pack", pack_path, "--device", "cpu"]
    words += ["--checkpoint", run_folder, "--out", tmp_path / "out", "--no-cache"]
    assert evaluate.main([str(word) for word in words]) == 0
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    assert [target["known"] for target in benchmark["targets"]] == [
        ["ant", "bee", "cat"],
        ["eel", "dog", "cat"],
    ]
    assert [setting["name"] for setting in benchmark["settings"]] == ["Night"]


def test_the_documented_protocol_of_several_packs_is_evaluated(
    image_tree, insects_path, run_folder, tmp_path
):
    _, _, text, _ = re.findall(r"```yaml\n(.*?)```", PROTOCOLS.read_text(), re.DOTALL)
    (tmp_path / "textures.yaml").write_text(text)
    samples = [path.relative_to(image_tree) for path in sorted(image_tree.rglob("*.jpg"))]
    splits = {"day": "train", "night": "val"}
    lines = [f"{path},{path.parts[1]},{splits[path.parts[0]]}\n" for path in samples]
    (tmp_path / "images.csv").write_text("".join(["path,class,split\n", *lines]))
    pack = ["pack", "table", "--list", tmp_path / "images.csv", "--root", image_tree]
    pack += ["--name", "imagenet", "--out", tmp_path / "imagenet", "--workers", "1"]
    assert sharding([str(word) for word in pack]) == 0
    textures = shutil.copytree(insects_path, tmp_path / "dtd")
    manifest = Manifest.load(textures)
    replace(manifest, dataset="dtd").save(textures)
    words = ["--protocol", tmp_path / "textures.yaml", "--pack", textures, tmp_path / "imagenet"]
    words += ["--checkpoint", run_folder, "--out", tmp_path / "out", "--no-cache"]
    assert evaluate.main([str(word) for word in [*words, "--device", "cpu"]]) == 0
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    # The bees among the second pack's images have the name of a known class.
    assert benchmark["targets"][0]["counts"] == {
        "references": 30,
        "tests": 54,
        "known": 38,
        "unknown": 16,
    }


def test_the_documented_protocol_of_groups_is_evaluated(pack_path, run_folder, tmp_path):
    *_, text = re.findall(r"```yaml\n(.*?)```", PROTOCOLS.read_text(), re.DOTALL)
    (tmp_path / "groups.yaml").write_text(text)
    words = ["--protocol", tmp_path / "groups.yaml", "--pack", pack_path, "--device", "cpu"]
    words += ["--checkpoint", run_folder, "--out", tmp_path / "out", "--no-cache"]
    assert evaluate.main([str(word) for word in words]) == 0
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    groups = benchmark["targets"][0]["groups"]
    assert {group["name"]: group["counts"]["unknown"] for group in groups} == {"near": 6, "far": 12}


def test_the_documented_keys_of_a_selection_are_all_there_are():
    section = PROTOCOLS.read_text().split("## Selections")[1].split("##")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for cell in first_cells for name in re.findall(r"`([a-z]+)`", cell)}
    assert named == {field.name for field in fields(Selection)} | {"dataset"}


def test_the_documents_table_has_the_evaluators_in_their_order():
    section = DOCUMENT.read_text().split("## Evaluators")[1].split("##")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [name for cell in first_cells for name in re.findall(r"`([a-z-]+)`", cell)]
    assert tuple(named) == EVALUATORS
