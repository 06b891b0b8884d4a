"""Predictions for files, folders and packs, and what `predict.py` refuses."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import predict
from evaluation.__main__ import main as evaluation
from evaluation.detectors import storage
from evaluation.detectors.prediction_files import SCHEMA
from pipelines.pack import Pack
from tests.common import flip
from tests.evaluation.conftest import fit_words


@pytest.fixture
def photos(image_tree, tmp_path) -> Path:
    """Folders of any depth with nine images: three known, and some in formats of many kinds."""
    root = tmp_path / "photos"
    (root / "trip" / "day 1").mkdir(parents=True)
    for name in ("ant", "dog", "eel"):
        shutil.copy(image_tree / "day" / name / "0.jpg", root / f"{name}.jpg")
        shutil.copy(image_tree / "day" / name / "1.jpg", root / "trip" / f"{name}.JPEG")
    with Image.open(image_tree / "day" / "bee" / "0.jpg") as image:
        image.convert("CMYK").save(root / "trip" / "day 1" / "cmyk.jpg")
        image.save(root / "trip" / "day 1" / "bee.webp", lossless=True)
        image.convert("RGBA").save(root / "trip" / "day 1" / "alpha.png")
    return root


def run(*words: str | Path, status: int = 0) -> None:
    assert predict.main([*map(str, words), "--device", "cpu"]) == status


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file of predictions."""
    return list(csv.DictReader(path.read_text().splitlines()))


def test_predictions_are_the_detectors(fitted, image_tree, tmp_path):
    run(fitted, image_tree, "--out", tmp_path / "p.csv")
    found = rows(tmp_path / "p.csv")
    assert [row["image"] for row in found] == sorted(map(str, image_tree.rglob("*.jpg")))
    detector = storage.load(fitted, torch.device("cpu"))
    images = []
    for row in found:
        with Image.open(row["image"]) as image:
            images.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
    scores = detector.novelty.score(images)
    # The images are resized by torch here, and by DALI there: they differ by less than 1 of 255.
    normality = np.array([float(row["normality"]) for row in found])
    np.testing.assert_allclose(normality, scores.normality.numpy(), atol=0.01)
    names = [known.name for known in detector.classes]
    for row, ranked in zip(found, scores.ranking.classes.tolist()):
        is_known = float(row["normality"]) >= detector.threshold.value
        assert row["decision"] == ("known" if is_known else "novel")
        assert {row["nearest"], row["second"], row["third"]} == {names[c] for c in ranked}
        assert float(row["nearest_score"]) == float(row["normality"])
        assert float(row["second_score"]) >= float(row["third_score"])


def test_a_pack_is_predicted_as_the_folder_it_was_made_from(
    fitted, pack_path, image_tree, tmp_path
):
    run(fitted, pack_path, "--out", tmp_path / "pack.csv")
    run(fitted, image_tree, "--out", tmp_path / "folder.csv", "--batch-size", "7")
    of_pack, of_folder = rows(tmp_path / "pack.csv"), rows(tmp_path / "folder.csv")
    pack = Pack(pack_path)
    sources = pack.sources(np.arange(len(pack.index)))
    by_path = {row["image"]: row for row in of_folder}
    assert [row["image"] for row in of_pack] == pack.keys(np.arange(len(sources)))
    for row, source in zip(of_pack, sources, strict=True):
        other = by_path[f"{image_tree}/{source}"]
        assert float(row["normality"]) == pytest.approx(float(other["normality"]), abs=1e-5)
        assert row["nearest"] == other["nearest"]


def test_the_formats_hold_the_same(fitted, photos, tmp_path):
    for suffix in ("csv", "jsonl", "parquet"):
        run(fitted, photos, "--out", tmp_path / f"p.{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema == SCHEMA
    assert table.to_pylist() == lines
    of_csv = rows(tmp_path / "p.csv")
    assert [list(row.values()) for row in of_csv] == [
        ["" if value is None else str(value) for value in line.values()] for line in lines
    ]
    assert len(lines) == 9


def test_files_and_folders_are_predicted_in_the_order_given(fitted, photos, tmp_path):
    first, second = photos / "trip" / "day 1" / "bee.webp", photos / "eel.jpg"
    run(fitted, first, photos / "trip", second, "--out", tmp_path / "p.csv")
    names = [row["image"] for row in rows(tmp_path / "p.csv")]
    assert (names[0], names[-1]) == (str(first), str(second))
    assert len(names) == 8


def test_images_that_cannot_be_read_are_named_and_left_out(fitted, photos, tmp_path, capsys):
    for number, content in enumerate((b"", b"no image", (photos / "ant.jpg").read_bytes()[:300])):
        (photos / f"broken {number}.jpg").write_bytes(content)
    (photos / "link.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "notes.txt").write_text("of the trip")
    (photos / "trip" / "loop").symlink_to(photos)
    run(fitted, photos, "--out", tmp_path / "p.csv", status=1)
    note, *skipped = capsys.readouterr().err.splitlines()
    assert note == (
        f"note: {photos}: files without an image's extension are left out: 1, the first is "
        f"{photos}/notes.txt"
    )
    beginnings = [f"{name}.jpg: " for name in ("broken 0", "broken 1", "broken 2", "link")]
    assert len(skipped) == len(beginnings)
    for line, beginning in zip(skipped, beginnings):
        assert line.startswith(f"skipped: {photos}/{beginning}")
    assert len(rows(tmp_path / "p.csv")) == 9


def test_damaged_samples_of_a_pack_are_named_by_their_keys(fitted, pack_path, tmp_path, capsys):
    pack = Pack(shutil.copytree(pack_path, tmp_path / "pack"))
    row = 4
    shard = pack.path / pack.manifest.shards[int(pack.index.shard[row])].name
    flip(shard, int(pack.index.offset[row] + pack.index.size[row] // 2))
    (key,) = pack.keys(np.array([row]))
    run(fitted, pack.path, "--out", tmp_path / "p.csv", status=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"skipped: {key}: damaged")
    found = [row["image"] for row in rows(tmp_path / "p.csv")]
    assert found == [other for other in pack.keys(np.arange(60)) if other != key]


def test_where_no_image_can_be_read_nothing_is_written(fitted, tmp_path, detector_refusal):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no image")
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    line = detector_refusal(fitted, *paths, "--out", tmp_path / "p.csv", "--device", "cpu")
    assert f"none of 3 images can be read; first {paths[0]}: not a readable image" in line
    assert sorted(tmp_path.iterdir()) == paths


def test_of_neighbors_only_classes_among_them_are_ranked(run_folder, pack_path, tmp_path):
    options = ["--evaluator", "knn", "--neighbors", "1"]
    assert evaluation(fit_words(run_folder, pack_path, tmp_path / "knn", *options)) == 0
    run(tmp_path / "knn", pack_path, "--out", tmp_path / "p.csv")
    for row in rows(tmp_path / "p.csv"):
        assert row["nearest"]
        assert row["second"] == row["second_score"] == row["third"] == ""


def test_the_report_shows_the_most_novel_images_first(fitted, image_tree, photos, tmp_path):
    run(fitted, photos, "--out", tmp_path / "p.csv", "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 9
    lowest_first = sorted(rows(tmp_path / "p.csv"), key=lambda row: float(row["normality"]))
    assert re.findall(r'title="([^"]+)"', page) == [row["image"] for row in lowest_first]
    assert "http" not in page


def test_names_are_escaped_in_every_file(fitted, image_tree, tmp_path):
    name = tmp_path / "<b>=1+1\x1b[31m.jpg"
    shutil.copy(image_tree / "day" / "ant" / "0.jpg", name)
    for suffix in ("csv", "jsonl", "parquet"):
        run(
            fitted, name, "--out", tmp_path / f"p.{suffix}", "--report", tmp_path / f"{suffix}.html"
        )
        assert b"\x1b" not in (tmp_path / f"p.{suffix}").read_bytes()
    page = (tmp_path / "csv.html").read_text()
    assert "<b>=1" not in page
    assert "\x1b" not in page
    line = json.loads((tmp_path / "p.jsonl").read_text())
    assert line["image"] == str(name)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["DETECTOR", "nowhere", "--out", "p.csv"], "nowhere does not exist"),
        (["DETECTOR", "EMPTY", "--out", "p.csv"], "holds no files with an image's extension"),
        (["DETECTOR", "PHOTOS", "--out", "p.xls"], "none of the extensions .csv, .jsonl, .parquet"),
        (["DETECTOR", "PHOTOS", "--out", "there.csv"], "there.csv exists"),
        (["DETECTOR", "PHOTOS", "--out", "p.csv", "--report", "there.csv"], "there.csv exists"),
        (["DETECTOR", "PHOTOS", "--out", "there.csv/p.csv"], "cannot write the predictions"),
        (["DETECTOR", "PHOTOS", "PACK", "--out", "p.csv"], "is a pack; give it alone"),
        (["DETECTOR", "PHOTOS"], "--out"),
        (["DETECTOR", "--out", "p.csv"], "images"),
        (["PHOTOS", "PHOTOS", "--out", "p.csv"], "is not a detector"),
        (["nowhere", "PHOTOS", "--out", "p.csv"], "is not a detector"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    words, reason, fitted, photos, pack_path, tmp_path, monkeypatch, detector_refusal
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    places = {
        "DETECTOR": fitted,
        "PHOTOS": photos,
        "EMPTY": tmp_path / "empty",
        "PACK": pack_path,
    }
    assert reason in detector_refusal(*(places.get(word, word) for word in words))
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert not (tmp_path / "p.csv").exists()


def test_files_are_overwritten_if_asked(fitted, photos, tmp_path):
    out, page = tmp_path / "p.csv", tmp_path / "page.html"
    for path in (out, page):
        path.write_text("old")
    run(fitted, photos, "--out", out, "--report", page, "--overwrite")
    assert len(rows(out)) == 9
    assert page.read_text() != "old"
