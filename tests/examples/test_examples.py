"""The examples run, and do what they say."""

import csv
import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from evaluation.__main__ import main as evaluation
from examples import own_classifier
from model.backbone import create_backbone
from tests.common import ROOT

EXAMPLES = ROOT / "examples"


def checkered(seed: int, domain: str, class_number: int, sample: int) -> Image.Image:
    """Takes the place of a character: colors of its class, which a few steps learn."""
    colors = np.random.default_rng(class_number).uniform(40, 215, (4, 4, 3))
    noise = np.random.default_rng((class_number, sample)).normal(0, 15, (4, 4, 3))
    return Image.fromarray(np.clip(colors + noise, 0, 255).astype(np.uint8))


def test_the_classifier_answers_with_a_known_class_or_that_an_image_is_novel(monkeypatch, capsys):
    monkeypatch.setattr(own_classifier, "draw", checkered)
    answers, truth = own_classifier.main(steps=12, num_classes=3)
    assert torch.bincount(truth).tolist() == [20] * 6
    assert answers.shape == truth.shape
    assert set(answers.tolist()) == {-1, 0, 1, 2}
    rejected, known = answers == -1, truth < 3
    assert rejected[~known].float().mean() > rejected[known].float().mean() + 0.5
    assert (answers == truth)[known].float().mean() > 0.7  # 0.33 by chance
    printed = capsys.readouterr().out
    assert f"known images accepted: {(~rejected)[known].float().mean():.0%}" in printed
    assert f"novel images rejected: {rejected[~known].float().mean():.0%}" in printed


@pytest.mark.slow
def test_the_classifier_rejects_most_novel_characters_and_few_known_ones():
    answers, truth = own_classifier.main()
    known, accepted = truth < 10, answers >= 0
    assert accepted[known].float().mean() >= 0.9
    assert (answers == truth)[known & accepted].float().mean() >= 0.95
    assert (~accepted)[~known].float().mean() >= 0.8


def test_the_classifier_has_at_most_40_lines_of_code():
    text = (EXAMPLES / "own_classifier.py").read_text()
    code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL).splitlines()
    assert len([line for line in code if line.strip() and not line.strip().startswith("#")]) <= 40


@pytest.fixture
def photos(image_tree, tmp_path, monkeypatch):
    """The folders of the document, in the working directory; all photos of eels are herons'."""
    photos = tmp_path / "photos"
    shutil.copytree(image_tree / "day", photos / "known")
    shutil.move(photos / "known" / "eel", photos / "heron")
    shutil.copytree(image_tree / "night", photos / "new")
    torch.manual_seed(0)
    weights = create_backbone("resnet18", image_size=224).state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    monkeypatch.chdir(tmp_path)
    return photos


def test_the_commands_lead_from_photos_to_predictions(photos):
    text = (EXAMPLES / "own_images.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^python .*", text, re.MULTILINE)]
    assert len(commands) == 4
    for _, program, *words in commands:
        if program == "predict.py":
            assert predict.main(words) == 0
        else:
            # A file takes the place of the download.
            weights = ["--weights", "resnet18.pth"] if "--backbone" in words else []
            assert evaluation([*words[1:], *weights]) == 0
    rows = list(csv.DictReader(photos.with_name("predictions.csv").open()))
    assert {row["image"] for row in rows} == {
        str(path.relative_to(photos.parent)) for path in (photos / "new").rglob("*.jpg")
    }
    assert {row["decision"] for row in rows} <= {"known", "novel"}
    record = json.loads((photos.parent / "detectors/photos/detector.json").read_text())
    assert "heron" in json.dumps(record["classes"])
    assert photos.with_name("novel.html").exists()
