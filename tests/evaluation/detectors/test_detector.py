"""Detectors on disk: what is stored, and how their classes change."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import predict
from evaluation.__main__ import main
from evaluation.detectors import storage
from evaluation.detectors.commands import only_process
from evaluation.detectors.detector import hold_out
from evaluation.detectors.options import ComputeOptions
from evaluation.detectors.record import record_content
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import load_network
from model.backbone import create_backbone
from model.novelty import NoveltyDetector
from pipelines.config import InputConfig
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.errors import CheckpointError, ConfigError
from tests.common import ROOT, files_of, flip
from tests.evaluation.conftest import ALONE, fit_words

CPU = torch.device("cpu")
KNOWN = ("ant", "bee", "cat")


@pytest.fixture
def changeable(fitted, tmp_path) -> Path:
    return shutil.copytree(fitted, tmp_path / "detector")


def record_of(folder):
    return json.loads((folder / "detector.json").read_text())


def rows_and_features(run_folder, pack_path, classes):
    """The rows of ``classes`` in the pack, and their features."""
    pack = Pack(pack_path)
    rows = Selection(classes=classes).rows(pack)
    network = load_network(run_folder, CPU)
    config = ExtractionConfig(InputConfig(device="cpu"))
    extractor = FeatureExtractor(network, pack, ALONE, config)
    return network, rows, extractor.run(rows), torch.from_numpy(pack.index.label[rows].astype(int))


def of_held_out(detector):
    """The normality of the held-out references, compared with the others by cosine."""
    held_out, references = detector.references.held_out, detector.references
    others = NoveltyDetector(detector.network.network, "cosine")
    others.fit(references.features[~held_out], references.labels[~held_out])
    return others.score(references.features[held_out]).normality


def test_a_loaded_detector_scores_as_one_that_was_never_saved(fitted, run_folder, pack_path):
    network, _, features, labels = rows_and_features(run_folder, pack_path, KNOWN)
    _, _, tests, _ = rows_and_features(run_folder, pack_path, ("dog", "eel"))
    unsaved = NoveltyDetector(network.network, "cosine").fit(features, labels)
    loaded = storage.load(fitted, CPU)
    assert [known.name for known in loaded.classes] == list(KNOWN)
    assert [known.images for known in loaded.classes] == [12, 12, 12]
    found, expected = loaded.novelty.score(tests), unsaved.score(tests)
    torch.testing.assert_close(found.normality, expected.normality)
    assert torch.equal(found.predicted, expected.predicted)


def test_the_threshold_is_chosen_on_references_that_are_compared_with_the_others(fitted):
    loaded = storage.load(fitted, CPU)
    held_out, references = loaded.references.held_out, loaded.references
    assert torch.bincount(references.labels[held_out]).tolist() == [2, 2, 2]  # a fifth of 12
    normality = of_held_out(loaded)
    assert loaded.threshold.value == normality.min().item()  # 95 % of 6 are all of them
    assert (loaded.threshold.images, loaded.threshold.recall) == (6, 0.95)


def test_images_are_known_as_the_threshold_says(fitted):
    loaded = storage.load(fitted, CPU)
    assert loaded.novelty.threshold == loaded.threshold.value
    accepted = loaded.novelty.is_known(loaded.references.features[loaded.references.held_out])
    assert accepted.all()


def test_saving_what_was_loaded_changes_no_file(fitted, tmp_path):
    storage.save(storage.load(fitted, CPU), tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(fitted)


def test_class_means_decide_as_all_references_do(run_folder, pack_path, tmp_path):
    folders = tmp_path / "all", tmp_path / "means"
    for out, options in zip(folders, ([], ["--prototypes-only"])):
        assert main(fit_words(run_folder, pack_path, out, *options)) == 0
    whole, means = (storage.load(folder, CPU) for folder in folders)
    tests = whole.references.features + 0.1
    assert means.references.features.shape == (3, whole.references.features.shape[1])
    assert torch.equal(means.novelty.score(tests).normality, whole.novelty.score(tests).normality)
    assert means.threshold == whole.threshold


@pytest.mark.parametrize(("recall", "accepted"), [("95%", 6), ("99.5%", 6), ("0.75", 5)])
def test_fitting_says_how_many_held_out_references_are_accepted(
    recall, accepted, run_folder, pack_path, tmp_path, capsys
):
    words = fit_words(run_folder, pack_path, tmp_path / "out", "--evaluator", "cosine")
    assert main([*words, "--recall", recall]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    shown = recall if "%" in recall else "75%"
    assert line.endswith(f"accepts {accepted} of 6 held-out references (recall {shown})")
    loaded = storage.load(tmp_path / "out", CPU)
    assert int((of_held_out(loaded) >= loaded.threshold.value).sum()) == accepted


def test_a_threshold_set_takes_the_place_of_held_out_references(
    run_folder, pack_path, image_tree, tmp_path, capsys
):
    out, known = tmp_path / "out", tmp_path / "known"
    for class_ in ("ant", "eel"):  # eels are not known
        shutil.copytree(image_tree / "night" / class_, known / class_)
    options = ["--domains", "day", "--threshold-set", str(known), "--recall", "50%"]
    assert main(fit_words(run_folder, pack_path, out, *options, "--evaluator", "euclidean")) == 0
    loaded = storage.load(out, CPU)
    _, rows, features, _ = rows_and_features(run_folder, pack_path, ("ant",))
    ants = features[torch.from_numpy(Pack(pack_path).index.domain[rows] == 1)]
    accepted = loaded.novelty.score(ants).normality >= loaded.threshold.value - 1e-4
    assert (loaded.threshold.images, int(accepted.sum())) == (6, 3)
    assert loaded.threshold.source == str(known)
    assert f"accepts 3 of 6 images of {known} (recall 50%)" in capsys.readouterr().out
    assert not loaded.references.held_out.any()


def test_a_class_that_is_added_counts_as_if_it_had_been_fitted(
    run_folder, pack_path, image_tree, fitted, tmp_path
):
    out = tmp_path / "out"
    words = fit_words(run_folder, pack_path, out, "--evaluator", "cosine")
    words[words.index("cat")] = "bee"
    assert main(words) == 0
    cats = tmp_path / "cats"
    for domain in ("day", "night"):
        shutil.copytree(image_tree / domain / "cat", cats / domain)
    assert main(["add-class", str(out), "cat", str(cats), "--device", "cpu"]) == 0
    added, whole = storage.load(out, CPU), storage.load(fitted, CPU)
    assert [known.name for known in added.classes] == list(KNOWN)
    assert added.classes[2].source == str(cats)
    assert added.threshold.images == whole.threshold.images
    tests = whole.references.features + 0.1
    torch.testing.assert_close(
        added.novelty.score(tests).normality, whole.novelty.score(tests).normality
    )


def test_a_class_is_added_from_a_pack(changeable, pack_path):
    words = ["add-class", changeable, "worm", pack_path, "--classes", "eel", "--domains", "day"]
    assert main([str(word) for word in [*words, "--device", "cpu"]]) == 0
    assert storage.load(changeable, CPU).classes[3].images == 6


def test_a_class_that_was_added_and_removed_leaves_no_trace(changeable, fitted, image_tree):
    before = record_of(changeable)
    words = ["add-class", changeable, "dog", image_tree / "day" / "dog", "--device", "cpu"]
    assert main(list(map(str, words))) == 0
    assert len(record_of(changeable)["classes"]) == 4
    assert len(files_of(changeable)) == 3
    assert main(["remove-class", str(changeable), "dog"]) == 0
    assert record_of(changeable) == before
    assert files_of(changeable) == files_of(fitted)


def test_the_classes_after_a_removed_one_keep_their_references(changeable):
    before = storage.load(changeable, CPU)
    assert main(["remove-class", str(changeable), "ant"]) == 0
    after = storage.load(changeable, CPU)
    assert [known.name for known in after.classes] == ["bee", "cat"]
    assert after.references.labels.unique().tolist() == [0, 1]
    assert torch.equal(
        after.references.features, before.references.features[before.references.labels > 0]
    )


def test_a_threshold_that_cannot_be_chosen_again_is_kept_and_the_command_says_so(
    run_folder, pack_path, image_tree, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(fit_words(run_folder, pack_path, out, "--prototypes-only")) == 0
    before = record_of(out)["threshold"]
    capsys.readouterr()
    words = ["add-class", out, "dog", image_tree / "day" / "dog", "--device", "cpu"]
    assert main(list(map(str, words))) == 0
    assert record_of(out)["threshold"] == before
    assert "threshold: kept" in capsys.readouterr().out
    assert len(storage.load(out, CPU).references.features) == 4


def test_a_detector_keeps_how_images_are_prepared(run_folder, pack_path, tmp_path):
    options = ["--image-size", "32", "--crop-mode", "center", "--crop-pct", "0.8"]
    assert main(fit_words(run_folder, pack_path, tmp_path / "out", *options)) == 0
    preprocessing = storage.load(tmp_path / "out", CPU).network.network.preprocessing
    assert (preprocessing.image_size, preprocessing.crop_mode) == (32, "center")
    assert preprocessing.crop_pct == 0.8


@pytest.fixture
def bare(pack_path, tmp_path) -> list[str]:
    """The arguments that fit a detector of a bare backbone with random weights."""
    torch.manual_seed(0)
    torch.save(create_backbone("test_resnet", image_size=48).state_dict(), tmp_path / "bare.pth")
    words = fit_words(tmp_path, pack_path, tmp_path / "bare", "--image-size", "48")
    network = ["--backbone", "test_resnet", "--weights", str(tmp_path / "bare.pth")]
    return [words[0], *network, *words[3:]]


def test_a_detector_of_a_bare_backbone_compares_by_distances(bare, tmp_path, image_tree):
    assert main(bare) == 0
    record, loaded = record_of(tmp_path / "bare"), storage.load(tmp_path / "bare", CPU)
    assert record["evaluator"] == "cosine"
    assert record["network"]["path"] == str(tmp_path / "bare.pth")
    assert loaded.network.network.relation is None
    (tmp_path / "bare.pth").unlink()
    words = [tmp_path / "bare", image_tree, "--out", tmp_path / "p.csv", "--device", "cpu"]
    assert predict.main(list(map(str, words))) == 0
    assert main(["remove-class", str(tmp_path / "bare"), "ant"]) == 0


def test_a_bare_backbone_has_no_relational_evaluator(bare, tmp_path, detector_refusal):
    line = detector_refusal(*bare, "--evaluator", "relation-logit")
    assert "has no relational module for relation-logit; choose from cosine" in line
    assert "no network given" in detector_refusal(bare[0], *bare[5:])
    assert not (tmp_path / "bare").exists()


def test_a_detector_keeps_its_whitening_map(run_folder, pack_path, tmp_path):
    options = ["--evaluator", "whitened-cosine", "--covariance-pack", str(pack_path)]
    options += ["--covariance-classes", "dog", "eel"]
    assert main(fit_words(run_folder, pack_path, tmp_path / "out", *options)) == 0
    loaded = storage.load(tmp_path / "out", CPU)
    whitening = loaded.rule.options.whitening
    assert whitening is not None
    assert not torch.equal(whitening.matrix, torch.eye(len(whitening.mean)))
    assert loaded.novelty.score(loaded.references.features).normality.isfinite().all()


def test_unreadable_references_are_named_and_the_others_are_used(
    run_folder, image_tree, tmp_path, capsys
):
    tree = shutil.copytree(image_tree / "day", tmp_path / "tree")
    (tree / "ant" / "3.jpg").write_bytes((tree / "ant" / "3.jpg").read_bytes()[:400])
    assert main(fit_words(run_folder, tree, tmp_path / "out")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"skipped: {tree}/ant/3.jpg: damaged")
    counts = [known.images for known in storage.load(tmp_path / "out", CPU).classes]
    assert counts == [5, 6, 6, 6, 6]


def test_a_class_without_a_readable_reference_is_refused(
    run_folder, image_tree, tmp_path, detector_refusal
):
    tree = shutil.copytree(image_tree / "day", tmp_path / "tree")
    for path in (tree / "bee").iterdir():
        path.write_bytes(b"no image")
    line = detector_refusal(*fit_words(run_folder, tree, tmp_path / "out"))
    assert "no image of class bee" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["detector.json", "weights", "references"])
@pytest.mark.parametrize("position", [-50, 200])
def test_an_altered_file_is_refused(changeable, image_tree, detector_refusal, name, position):
    (path,) = changeable.glob(f"{name}*")
    flip(path, position, bit=1)
    line = detector_refusal(changeable, image_tree, "--out", changeable / "p.csv")
    assert str(path) in line


@pytest.mark.parametrize("name", ["detector.json", "weights", "references"])
def test_a_missing_file_is_refused(changeable, image_tree, detector_refusal, name):
    (path,) = changeable.glob(f"{name}*")
    path.unlink()
    assert str(changeable) in detector_refusal(changeable, image_tree, "--out", "p.csv")


def test_a_detector_of_a_newer_format_is_refused(changeable, image_tree, detector_refusal):
    content = record_of(changeable) | {"format": 2, "novelties": {}}
    (changeable / "detector.json").write_text(json.dumps(content))
    line = detector_refusal(changeable, image_tree, "--out", changeable.parent / "p.csv")
    assert "its format is 2" in line
    assert "use a newer version" in line


def test_references_that_are_not_those_of_the_record_are_refused(fitted, tmp_path):
    loaded = storage.load(fitted, CPU)
    wrong = replace(loaded.references, labels=torch.zeros_like(loaded.references.labels))
    storage.save(replace(loaded, references=wrong), tmp_path / "wrong")
    with pytest.raises(CheckpointError, match="its labels are not those of the classes"):
        storage.load(tmp_path / "wrong", CPU)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["add-class", "DETECTOR", "bee", "IMAGES"], "has a class bee already"),
        (["add-class", "DETECTOR", "dog", "EMPTY"], "holds no files with an image's extension"),
        (["add-class", "DETECTOR", "dog", "nowhere"], "there is no pack and no folder nowhere"),
        (["add-class", "DETECTOR", "dog", "IMAGES", "--splits", "a"], "select images of packs"),
        (["add-class", "DETECTOR", "a\nb", "IMAGES"], "cannot be a name"),
        (["add-class", "IMAGES", "dog", "IMAGES"], "is not a detector"),
        (["remove-class", "DETECTOR", "dog"], "no class dog; it has ant, bee, cat"),
        (["remove-class", "nowhere", "dog"], "is not a detector"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    words, reason, changeable, image_tree, tmp_path, detector_refusal
):
    (tmp_path / "empty").mkdir()
    before = files_of(changeable)
    places = {
        "DETECTOR": changeable,
        "IMAGES": image_tree / "day" / "dog",
        "EMPTY": tmp_path / "empty",
    }
    assert reason in detector_refusal(*(places.get(word, word) for word in words))
    assert files_of(changeable) == before


def test_the_only_class_cannot_be_removed(changeable, detector_refusal):
    for name in ("ant", "bee"):
        assert main(["remove-class", str(changeable), name]) == 0
    assert "only class" in detector_refusal("remove-class", changeable, "cat")


def test_a_softmax_over_one_class_is_refused(run_folder, image_tree, tmp_path, detector_refusal):
    shutil.copytree(image_tree / "day" / "ant", tmp_path / "known" / "ant")
    words = fit_words(run_folder, tmp_path / "known", tmp_path / "out")
    line = detector_refusal(*words, "--evaluator", "relation-softmax")
    assert "relation-softmax over one class is 1 for every image" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--evaluator", "knn", "--prototypes-only"], "knn compares with single references"),
        (["--evaluator", "knn"], "knn needs 50 neighbors, but there are 30 references"),
        (["--evaluator", "all"], "one evaluator"),
        (["--evaluator", "msp"], "msp needs a classifier of the known classes"),
        (["--evaluator", "nothing"], "no evaluator is called nothing"),
        (["--evaluator", "whitened-cosine"], "whitened-cosine has no covariance"),
        (["--backbone", "resnet18"], "give a --checkpoint or a --backbone"),
        (["--weights", "resnet18.pth"], "1 --weights for 0 --backbone"),
        (["--covariance-pack", "packs/x"], "is for --evaluator whitened-cosine alone"),
        (["--covariance-classes", "a"], "needs their --covariance-pack"),
        (["--classes", "wolf"], "has no class wolf"),
        (["--recall", "0"], "must be above 0"),
        (["--threshold-set", "nowhere"], "there is no pack and no folder nowhere"),
        (["--threshold-set", "OTHERS"], "has no image of a known class; its classes are fly"),
        (["--image-size", "5000"], "image_size is 5000"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    options, reason, run_folder, pack_path, image_tree, tmp_path, detector_refusal
):
    shutil.copytree(image_tree / "day" / "dog", tmp_path / "others" / "fly")
    given = [str(tmp_path / "others") if word == "OTHERS" else word for word in options]
    words = fit_words(run_folder, pack_path, tmp_path / "out", *given)
    assert reason in detector_refusal(*words)
    assert not (tmp_path / "out").exists()


def test_one_reference_per_class_leaves_none_for_the_threshold(
    run_folder, image_tree, tmp_path, detector_refusal
):
    for class_ in KNOWN:
        (tmp_path / "tree" / class_).mkdir(parents=True)
        shutil.copy(image_tree / "day" / class_ / "0.jpg", tmp_path / "tree" / class_)
    words = fit_words(run_folder, tmp_path / "tree", tmp_path / "out")
    assert "no known image to choose a threshold on" in detector_refusal(*words)
    known = str(image_tree / "night")
    assert main([*words, "--threshold-set", known]) == 0


def test_nothing_is_overwritten_unless_asked(run_folder, pack_path, changeable, detector_refusal):
    words = fit_words(run_folder, pack_path, changeable)
    before = files_of(changeable)
    assert "give --overwrite" in detector_refusal(*words)
    assert files_of(changeable) == before
    assert main([*words, "--overwrite"]) == 0
    assert record_of(changeable)["evaluator"] == "relation-logit"
    assert len(files_of(changeable)) == 3
    (changeable / "notes.txt").write_text("mine")
    assert "such as notes.txt" in detector_refusal(*words, "--overwrite")


def test_a_detector_that_cannot_be_written_leaves_the_old_one(
    changeable, image_tree, monkeypatch, detector_refusal
):
    def full(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "record_content", full)
    images = image_tree / "day" / "dog"
    line = detector_refusal("add-class", changeable, "dog", images, "--device", "cpu")
    assert "No space left on device" in line
    monkeypatch.setattr(storage, "record_content", record_content)
    assert len(storage.load(changeable, CPU).classes) == 3
    assert main(["remove-class", str(changeable), "cat"]) == 0
    assert len(files_of(changeable)) == 3  # what the failed command left is gone


def test_a_detector_is_changed_by_one_command_at_a_time(changeable, detector_refusal):
    with storage.locked(changeable):
        line = detector_refusal("remove-class", changeable, "cat")
    assert "another command is changing" in line


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ConfigError, match="start it without torchrun"),
        only_process(ComputeOptions(device="cpu")),
    ):
        pass


def test_the_draw_of_held_out_references_is_the_same_every_time():
    labels = torch.tensor(np.repeat([0, 1, 2], [10, 1, 3]))
    held_out = hold_out(labels, 0.2)
    assert torch.bincount(labels[held_out], minlength=3).tolist() == [2, 0, 1]
    assert torch.equal(held_out, hold_out(labels, 0.2))
    assert not hold_out(labels, 0).any()


def test_the_documented_commands_and_the_example_run(
    run_folder, image_tree, pack_path, tmp_path, monkeypatch
):
    text = (ROOT / "docs" / "detector.md").read_text()
    for place in ("runs", "photos", "packs"):
        (tmp_path / place).mkdir()
    (tmp_path / "runs" / "imagenet").symlink_to(run_folder)
    (tmp_path / "packs" / "new").symlink_to(pack_path)
    shutil.copytree(image_tree / "day", tmp_path / "photos" / "known")
    shutil.move(tmp_path / "photos" / "known" / "eel", tmp_path / "photos" / "heron")
    shutil.copytree(image_tree / "night", tmp_path / "photos" / "new")
    shutil.copy(image_tree / "night" / "ant" / "0.jpg", tmp_path / "holiday.jpg")
    torch.save(create_backbone("resnet18", image_size=224).state_dict(), tmp_path / "resnet18.pth")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for language, block in blocks:
        for line in block.splitlines() if not language else ():
            _, program, *words = shlex.split(line)
            run = predict.main if program == "predict.py" else main
            assert run(words if program == "predict.py" else words[1:]) == 0, line
    assert len(list(tmp_path.glob("predictions.*"))) == 3
    exported, loaded = (block for language, block in blocks if language == "python")
    names = {"images": [torch.zeros(3, 40, 50, dtype=torch.uint8)] * 2}
    exec(compile(loaded, "docs/detector.md", "exec"), names)
    assert len(names["known"]) == len(names["names"]) == 2
    exec(compile(exported, "docs/detector.md", "exec"), names)
    predictions = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    (predicted,) = (row for row in predictions if row["image"] == "holiday.jpg")
    assert names["normality"] == pytest.approx(predicted["normality"], abs=0.02)
    decision = "novel" if names["answer"] == "novel" else "known"
    assert decision == predicted["decision"]
