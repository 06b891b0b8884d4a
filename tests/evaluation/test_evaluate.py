"""The command: what it writes, from what, and how the options change it."""

import json

import numpy as np
import pytest
import torch
import yaml

import evaluate
from evaluation.arguments import parse
from model.config import EVALUATORS, NEED_CLASSIFIER, ModelConfig
from model.network import build_network
from runtime import checkpoint
from runtime.original import export_original
from tests.evaluation.scores import assert_equal_scores, scores


def test_results_say_what_was_scored_and_from_what(arguments, tmp_path, capsys):
    assert evaluate.main(arguments(evaluators="all")) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["positive"].startswith("known is the positive class")
    (network,) = results["networks"]
    assert network["relational"]
    assert len(network["checkpoint"]["sha256"]) == 64
    assert network["checkpoint"]["step"] == 1
    (benchmark,) = results["benchmarks"]
    assert len(benchmark["pack"]["sha256"]) == 64
    assert [target["name"] for target in benchmark["targets"]] == ["day", "night"]
    day = benchmark["targets"][0]
    assert day["counts"] == {"references": 18, "tests": 30, "known": 18, "unknown": 12}
    lacking = {"whitened-cosine", *NEED_CLASSIFIER}  # nothing to learn from, no --classifier
    assert set(day["evaluators"]) == set(EVALUATORS) - lacking
    for values in day["evaluators"].values():
        assert values["auroc_low"] <= values["auroc"] <= values["auroc_high"]
    mean = np.mean([target["evaluators"]["cosine"]["auroc"] for target in benchmark["targets"]])
    assert benchmark["mean"]["cosine"]["auroc"] == pytest.approx(mean)
    shown = capsys.readouterr().out
    assert "known is positive" in shown
    assert "relation-softmax" in shown


def test_every_file_is_written_and_agrees(arguments, tmp_path):
    assert evaluate.main(arguments()) == 0
    out = tmp_path / "out"
    table = scores(out)
    assert len(table["key"]) == 60
    assert len(set(table["key"])) == 60
    assert table["known"].sum() == 36
    assert set(table["cosine.class"]) <= {"ant", "bee", "cat"}
    assert set(table["class"][~table["known"]]) == {"dog", "eel"}
    lines = (out / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 + 3
    results = json.loads((out / "results.json").read_text())
    auroc = results["benchmarks"][0]["targets"][0]["evaluators"]["cosine"]["auroc"]
    assert f"| day | cosine | **{auroc:.4f}** |" in (out / "results.md").read_text()


def test_scores_do_not_depend_on_the_batch_size(arguments, tmp_path):
    found = []
    for size in (1, 5, 64):
        out = f"out{size}"
        words = arguments(out, evaluators="all", batch_size=size, no_cache=True, memory=1)
        assert evaluate.main(words) == 0
        found.append(scores(tmp_path / out))
    for other in found[1:]:
        assert_equal_scores(other, found[0])


def test_features_are_extracted_once_and_then_found(arguments, tmp_path):
    extracted = []
    for run in range(2):
        assert evaluate.main(arguments(f"out{run}")) == 0
        results = json.loads((tmp_path / f"out{run}" / "results.json").read_text())
        extracted.append(results["benchmarks"][0]["features"]["extracted"])
    assert extracted == [60, 0]
    first, second = (scores(tmp_path / f"out{run}") for run in range(2))
    np.testing.assert_array_equal(second["cosine.normality"], first["cosine.normality"])


def test_one_target_is_run_alone(arguments, tmp_path):
    assert evaluate.main(arguments(target="night")) == 0
    assert set(scores(tmp_path / "out")["target"]) == {"night"}


def test_existing_results_are_replaced_only_when_asked(arguments, tmp_path, capsys, refusal):
    words = arguments(target="night")
    assert evaluate.main(words) == 0
    before = (tmp_path / "out" / "results.json").read_text()
    capsys.readouterr()
    assert "holds results; choose another --out, or give --overwrite" in refusal(words)
    assert (tmp_path / "out" / "results.json").read_text() == before
    assert evaluate.main([*words, "--overwrite"]) == 0
    assert (tmp_path / "out" / "results.json").read_text() != before


@pytest.mark.parametrize(
    ("old", "new", "values"),
    [
        ("--config", "--protocol", ["animals.yaml"]),
        ("--neighbours", "--neighbors", ["7"]),
        ("--neighbours=7", "--neighbors=7", []),
    ],
)
def test_old_options_work_for_a_release_with_a_hint(old, new, values, capsys):
    others = ["--protocol", "a.yaml", "--pack", "P", "--checkpoint", "R"]
    assert parse([*others, old, *values], "") == parse([*others, new, *values], "")
    (hint,) = capsys.readouterr().err.splitlines()
    assert hint.startswith(f"hint: {old.split('=')[0]} is now {new.split('=')[0]};")


def test_old_evaluator_names_work_for_a_release_with_a_hint(arguments, tmp_path, capsys):
    assert evaluate.main([*arguments(target="day"), "--evaluators", "knn-normalised"]) == 0
    hint = "hint: knn-normalised is now knn-normalized; the old name goes in the next release"
    assert capsys.readouterr().err.splitlines() == [hint]
    assert "knn-normalized.normality" in scores(tmp_path / "out")


def test_help_names_every_evaluator(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    text = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    assert f"some of {', '.join(EVALUATORS)}" in text


def test_a_damaged_cache_is_recomputed(arguments, tmp_path, capsys):
    assert evaluate.main(arguments("one")) == 0
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert evaluate.main(arguments("two")) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ignored: {file}: ")
    assert_equal_scores(scores(tmp_path / "two"), scores(tmp_path / "one"))


def test_the_receipt_names_the_checkpoint_that_was_read(arguments, run_folder, tmp_path, capsys):
    assert evaluate.main(arguments()) == 0
    (network,) = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    checkpoint = network["checkpoint"]
    assert checkpoint["path"] == str(run_folder / "checkpoints" / "step-00000001")
    assert (checkpoint["step"], checkpoint["untrained"]) == (1, ["backbone"])
    shown = capsys.readouterr().out
    assert f"checkpoint of step 1: {checkpoint['path']}" in shown
    assert "warning: untrained, with random weights: backbone" in shown


def test_the_originals_folder_is_evaluated_as_it_is(arguments, tmp_path):
    torch.manual_seed(0)
    network = build_network(ModelConfig(embed_dim=24, depth=1, num_heads=12))
    state, config = network.state_dict(), {"input": {"image_size": 48}}
    settings = {"embed_dim": 24, "depth": 1, "num_heads": 12}
    run = tmp_path / "run"
    checkpoint.save(run, 1, weights=state, config={**config, "model": settings}, metrics={})
    export_original(run, tmp_path / "original")
    for name in ("run", "original"):
        words = arguments(f"of {name}".replace(" ", "-"), checkpoint=tmp_path / name)
        assert evaluate.main([*words, "--image-size", "48"]) == 0
    assert_equal_scores(scores(tmp_path / "of-original"), scores(tmp_path / "of-run"))


def test_several_benchmarks_take_the_pack_of_their_data_set(
    arguments, pack_path, protocol_file, tmp_path
):
    other = yaml.safe_load(protocol_file.read_text()) | {"name": "Again"}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(other))
    words = arguments(protocol=f"{protocol_file} {tmp_path / 'again.yaml'}")
    assert evaluate.main(words) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [benchmark["name"] for benchmark in results["benchmarks"]] == ["Animals", "Again"]
    assert [b["features"]["extracted"] for b in results["benchmarks"]] == [60, 0]


def test_few_shots_leave_that_many_references(arguments, tmp_path):
    assert evaluate.main(arguments(shots=2, seed=3)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["benchmarks"][0]["targets"][0]["counts"]["references"] == 6
