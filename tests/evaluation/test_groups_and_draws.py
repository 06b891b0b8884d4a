"""Groups of unknown classes, and repeated few-shot draws, in every file of the results."""

import csv
import json

import numpy as np
import pytest
import yaml

import evaluate
from model.metrics import auroc, fpr95
from tests.evaluation.scores import scores

GROUPS = {"near": ["dog"], "far & away": ["eel"]}


@pytest.fixture(scope="module")
def output(pack_path, protocol_file, run_folder, tmp_path_factory):
    """The folder with results of 2 targets with 2 groups each, drawn 3 times."""
    folder = tmp_path_factory.mktemp("groups")
    content = yaml.safe_load(protocol_file.read_text())
    for target in content["targets"].values():
        target["groups"] = GROUPS
    (folder / "protocol.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    words = ["--protocol", folder / "protocol.yaml", "--pack", pack_path, "--device", "cpu"]
    words += ["--checkpoint", run_folder, "--out", folder / "out", "--no-cache"]
    words += ["--resamples", 2, "--evaluators", "cosine", "euclidean"]
    words += ["--shots", 2, "--seed", 0, 1, 4]
    assert evaluate.main([str(word) for word in words]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def benchmark(output):
    return json.loads((output / "results.json").read_text())["benchmarks"][0]


def test_each_draw_repeats_its_target(benchmark):
    names = [(target["name"], target["setting"]) for target in benchmark["targets"]]
    assert names == [
        (f"{name}, seed {seed}", f"{name}, 3 draws")
        for name in ("day", "night")
        for seed in (0, 1, 4)
    ]
    assert {target["counts"]["references"] for target in benchmark["targets"]} == {6}


def test_a_group_is_measured_against_all_known_images(output, benchmark):
    table = scores(output)
    for target in benchmark["targets"]:
        for group, (class_,) in zip(target["groups"], GROUPS.values(), strict=True):
            kept = (table["target"] == target["name"]) & (
                table["known"] | (table["class"] == class_)
            )
            assert group["counts"] == {"references": 6, "tests": 24, "known": 18, "unknown": 6}
            for name, metrics in group["evaluators"].items():
                normality = table[f"{name}.normality"][kept]
                known = table["known"][kept].astype(bool)
                assert metrics["auroc"] == auroc(known, normality)
                assert metrics["fpr95"] == fpr95(known, normality)


def test_mean_and_deviation_are_over_the_draws(benchmark):
    assert [(s["name"], s["group"]) for s in benchmark["settings"]] == [
        (f"{name}, 3 draws", group) for name in ("day", "night") for group in (None, *GROUPS)
    ]
    near = benchmark["settings"][1]
    drawn = [
        target["groups"][0]["evaluators"]["cosine"]["auroc"] for target in benchmark["targets"][:3]
    ]
    assert len(set(drawn)) > 1
    assert near["mean"]["cosine"]["auroc"] == pytest.approx(np.mean(drawn))
    assert near["std"]["cosine"]["auroc"] == pytest.approx(np.std(drawn, ddof=1))
    means = [benchmark["settings"][place]["mean"]["cosine"]["auroc"] for place in (1, 4)]
    assert benchmark["group_means"]["near"]["cosine"]["auroc"] == pytest.approx(np.mean(means))


def test_every_file_has_both(output, benchmark):
    day, near = benchmark["settings"][:2]
    with (output / "results.csv").open(newline="") as file:
        rows = {
            tuple(row[k] for k in ("target", "setting", "group", "evaluator")): row
            for row in csv.DictReader(file)
        }
    # Two evaluators, all and two groups: of six targets, mean and std of two settings, and means
    assert len(rows) == 2 * 3 * (6 + 2 * 2 + 1)
    for what in ("mean", "std"):
        for setting in (day, near):
            row = rows[what, "day, 3 draws", setting["group"] or "", "euclidean"]
            assert float(row["auroc"]) == setting[what]["euclidean"]["auroc"]
            assert row["auroc_low"] == row["tests"] == ""
    assert rows["night, seed 4", "night, 3 draws", "far & away", "cosine"]["unknown"] == "6"
    markdown = (output / "results.md").read_text()
    page = (output / "report.html").read_text()
    for what in ("mean", "std"):
        for label, setting in (("day, 3 draws", day), ("day, 3 draws: near", near)):
            value = f"{setting[what]['cosine']['fpr95_original']:.4f}"
            (row,) = (
                line
                for line in markdown.splitlines()
                if line.startswith(f"| {label}: {what} | cosine |")
            )
            assert value in row
            assert f"{label}: {what}" in page
            assert value in page


def test_the_terminal_shows_the_summary_alone(arguments, capsys):
    words = arguments(evaluators="cosine", target="day", shots=2, seed="0 1")
    assert evaluate.main(words) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "day,2draws:mean" in shown.replace("│", "")
    assert "seed0" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "0 1"}, "several numbers for --seed repeat the draw of --shots; add --shots N"),
        ({"seed": "1 1", "shots": 2}, "--seed has a number twice"),
        ({"seed": "-1", "shots": 2}, "--seed"),
    ],
)
def test_repetitions_that_repeat_nothing_are_refused(arguments, refusal, options, message):
    assert message in refusal(arguments(**options))
