"""Exported detectors give the detector's answers."""

import importlib.util
import json
import logging
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from evaluation.__main__ import main
from evaluation.detectors import export, storage
from model.config import Preprocessing
from model.transform import prepare
from tests.common import ROOT, files_of
from tests.evaluation.conftest import fit_words

CPU = torch.device("cpu")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def relational(run_folder, pack_path, tmp_path_factory):
    """A detector of ants, bees and cats, by relation-logit; not to be changed by a test."""
    out = tmp_path_factory.mktemp("detectors") / "relational"
    assert main(fit_words(run_folder, pack_path, out)) == 0
    return out


@pytest.fixture(scope="module")
def images_model(relational, tmp_path_factory):
    """The ONNX model of images."""
    return exported(relational, tmp_path_factory.mktemp("models") / "images.onnx")


def exported(detector, out, *options):
    assert main(["export", str(detector), "--out", str(out), *options]) == 0
    return out


def pixels(count):
    return torch.randint(256, (count, 3, 48, 48), dtype=torch.uint8)


def answers(detector, images):
    """The detector's normality and classes of ``images``, uint8 (N, 3, S, S)."""
    return scored(detector.novelty.score(list(images)))


def scored(scores):
    return scores.normality.numpy(), scores.predicted.numpy()


@pytest.mark.parametrize("count", [1, 5])
def test_an_onnx_model_of_images_answers_as_the_detector(images_model, relational, count):
    images = pixels(count)
    session = onnxruntime.InferenceSession(images_model)
    normality, nearest = session.run(["normality", "class"], {"images": images.numpy()})
    expected = answers(storage.load(relational, CPU), images)
    np.testing.assert_allclose(normality, expected[0], atol=TOLERANCE)
    np.testing.assert_array_equal(nearest, expected[1])


def test_an_onnx_model_of_features_compares_with_the_nearest_classes(
    relational, tmp_path, capsys, caplog
):
    path = exported(relational, tmp_path / "features.onnx", "--features", "--top", "2")
    assert capsys.readouterr().err == ""
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    session = onnxruntime.InferenceSession(path)
    whole = storage.load(relational, CPU)
    detector = whole.with_top(2)
    for count in (1, 5):
        features = whole.references.features[:count] + 0.1
        normality, nearest = session.run(["normality", "class"], {"features": features.numpy()})
        expected = scored(detector.novelty.score(features))
        np.testing.assert_allclose(normality, expected[0], atol=TOLERANCE)
        np.testing.assert_array_equal(nearest, expected[1])
    described = json.loads(session.get_modelmeta().custom_metadata_map["detector.json"])
    assert (described["top"], described["preprocessing"]) == (2, None)
    assert described["threshold"] == detector.threshold.value


def test_a_torch_program_answers_as_the_detector(fitted, tmp_path):
    path = exported(fitted, tmp_path / "model.pt2", "--format", "torch")
    files = {"detector.json": ""}
    program = torch.export.load(path, extra_files=files)
    for count in (1, 5):
        images = pixels(count)
        normality, nearest = program.module()(images)
        expected = answers(storage.load(fitted, CPU), images)
        np.testing.assert_allclose(normality, expected[0], atol=TOLERANCE)
        np.testing.assert_array_equal(nearest, expected[1])
    assert json.loads(files["detector.json"])["classes"] == ["ant", "bee", "cat"]
    with pytest.raises(RuntimeError, match="dtype"):
        program.module()(torch.rand(1, 3, 48, 48))  # not 0 .. 255
    # a type of this project's would have to be imported by whoever loads the program
    assert program.call_spec.out_spec.type is tuple
    assert str(ROOT).encode() not in path.read_bytes()


def test_an_onnx_model_names_no_folder(images_model):
    assert str(ROOT).encode() not in images_model.read_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"crop_mode": "center", "crop_pct": 0.7, "interpolation": "bicubic"},
        {"crop_mode": "squash", "crop_pct": 0.7},
    ],
)
def test_the_documented_program_prepares_images_as_the_detector(
    images_model, image_tree, tmp_path, monkeypatch, changed
):
    model = onnx.load(images_model)
    (described,) = model.metadata_props
    content = json.loads(described.value)
    content["preprocessing"] |= changed
    described.value = json.dumps(content)
    onnx.save(model, tmp_path / "photos.onnx")
    photo = Image.open(image_tree / "night" / "ant" / "0.jpg").convert("RGB")
    photo.resize((190, 125)).save(tmp_path / "holiday.jpg")
    text = (ROOT / "docs" / "detector.md").read_text()
    (code,) = re.findall(r"^```python\n(import json.*?)^```", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "docs/detector.md", "exec"), names)
    given = torch.from_numpy(np.array(Image.open("holiday.jpg"))).permute(2, 0, 1)
    wanted = {**content["preprocessing"], "mean": (0.0,) * 3, "std": (1.0,) * 3}
    expected = 255 * prepare(given, Preprocessing(**wanted)).numpy()
    np.testing.assert_allclose(names["images"][0], expected, atol=2)


def test_an_onnx_model_needs_nothing_of_this_project(images_model, relational, tmp_path):
    code = """
import json, sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
known = json.loads(session.get_modelmeta().custom_metadata_map["detector.json"])
images = numpy.zeros((2, 3, 48, 48), numpy.uint8)
normality, nearest = session.run(None, {"images": images})
assert "torch" not in sys.modules
json.dump([known, normality.tolist()], sys.stdout)
"""
    command = [sys.executable, "-I", "-c", code, str(images_model)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    described, normality = json.loads(found.stdout)
    detector = storage.load(relational, CPU)
    assert described["classes"] == ["ant", "bee", "cat"]
    assert described["threshold"] == detector.threshold.value
    assert described["preprocessing"]["image_size"] == 48
    expected = answers(detector, torch.zeros(2, 3, 48, 48, dtype=torch.uint8))
    np.testing.assert_allclose(normality, expected[0], atol=TOLERANCE)


def test_with_fewer_classes_the_threshold_is_chosen_again(relational):
    whole = storage.load(relational, CPU)
    few = whole.with_top(1)
    assert few.threshold.images == whole.threshold.images
    references = whole.references
    others = references.without(references.held_out)
    found = few.novelty.fit(others.features, others.labels)
    normality = found.score(references.features[references.held_out]).normality
    assert few.threshold.value == normality.min().item()  # 95 % of 6 are all of them


def test_a_threshold_that_is_kept_is_said_to_be(run_folder, pack_path, tmp_path, capsys):
    means = tmp_path / "means"
    assert main(fit_words(run_folder, pack_path, means, "--prototypes-only")) == 0
    exported(means, tmp_path / "m.pt2", "--format", "torch", "--features", "--top", "2")
    assert ", as chosen without --top; 3 classes" in capsys.readouterr().out


def test_softmax_over_fewer_classes_needs_images_for_another_threshold(
    run_folder, pack_path, tmp_path, detector_refusal
):
    options = ["--evaluator", "relation-softmax", "--prototypes-only"]
    assert main(fit_words(run_folder, pack_path, tmp_path / "means", *options)) == 0
    words = ["export", tmp_path / "means", "--out", tmp_path / "m.onnx", "--top", "2"]
    assert "needs another threshold" in detector_refusal(*words)


def test_the_evaluators_of_single_references_are_refused(
    run_folder, pack_path, tmp_path, detector_refusal
):
    options = ["--evaluator", "knn", "--neighbors", "3"]
    assert main(fit_words(run_folder, pack_path, tmp_path / "knn", *options)) == 0
    line = detector_refusal("export", tmp_path / "knn", "--out", tmp_path / "m.onnx")
    assert "knn compares with single references" in line
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("format_", ["onnx", "torch"])
def test_a_network_that_cannot_be_converted_is_refused(
    fitted, tmp_path, monkeypatch, detector_refusal, format_
):
    def unsupported(*arguments, **keywords):
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(torch.export, "export", unsupported)
    words = ["export", fitted, "--out", tmp_path / "m", "--format", format_]
    assert "cannot be exported (no such operator)" in detector_refusal(*words)


def test_a_model_with_other_answers_is_not_written(fitted, tmp_path, monkeypatch, detector_refusal):
    monkeypatch.setattr(export, "_expected", lambda detector, module, inputs: torch.ones(5))
    words = ["export", fitted, "--out", tmp_path / "m.pt2", "--format", "torch", "--features"]
    assert "normality differs by" in detector_refusal(*words)
    assert not files_of(tmp_path)


def test_a_network_too_large_for_onnx_is_refused(fitted, tmp_path, monkeypatch, detector_refusal):
    monkeypatch.setattr(export, "_MAX_ONNX", 100)
    line = detector_refusal("export", fitted, "--out", tmp_path / "m.onnx", "--features")
    assert "an ONNX file holds 2; choose --format torch" in line


def test_missing_packages_are_named(fitted, tmp_path, monkeypatch, detector_refusal):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    line = detector_refusal("export", fitted, "--out", tmp_path / "m.onnx")
    assert "pip install onnxscript" in line


def test_a_file_is_replaced_only_if_asked(fitted, tmp_path, detector_refusal):
    path = tmp_path / "m.pt2"
    path.write_text("mine")
    words = ["export", fitted, "--out", path, "--format", "torch", "--features"]
    assert "give --overwrite" in detector_refusal(*words)
    assert path.read_text() == "mine"
    exported(fitted, path, "--format", "torch", "--features", "--overwrite")
    assert torch.export.load(path)


@pytest.mark.parametrize(
    ("place", "message"),
    [(".", "is a folder"), ("file/m", "cannot write"), ("m" * 300, "cannot write")],
)
def test_a_place_that_cannot_be_written_is_named(
    fitted, tmp_path, detector_refusal, place, message
):
    (tmp_path / "file").write_text("")
    words = ["export", fitted, "--out", tmp_path / place, "--format", "torch", "--features"]
    assert message in detector_refusal(*words)


def test_a_file_of_the_detector_is_not_replaced(fitted, detector_refusal):
    before = files_of(fitted)
    words = ["export", fitted, "--out", fitted / "detector.json", "--overwrite"]
    assert "is in the detector's folder" in detector_refusal(*words)
    assert files_of(fitted) == before
