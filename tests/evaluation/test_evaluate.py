"""The command: what it writes, that it does not depend on how it is run, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

import evaluate
from evaluation.arguments import parse
from model.config import EVALUATORS, ModelConfig
from model.network import build_network
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from runtime import checkpoint
from runtime.original import export_original

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments(pack_path, protocol_file, run_folder, tmp_path):
    def build(out: str = "out", **options):
        values = {
            "protocol": protocol_file,
            "pack": pack_path,
            "checkpoint": run_folder,
            "out": tmp_path / out,
            "cache": tmp_path / "cache",
            "neighbors": 5,
            "resamples": 20,
            "device": "cpu",
            **options,
        }
        words = []
        for name, value in values.items():
            words.append("--" + name.replace("_", "-"))
            if value is not True:
                words += value.split() if isinstance(value, str) else [str(value)]
        return words

    return build


def scores(out: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(out / "scores.parquet")
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def refusal(arguments, capsys) -> str:
    """The one line on stderr of a command that must exit with 2."""
    assert evaluate.main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_results_say_what_was_scored_and_from_what(arguments, tmp_path, capsys):
    assert evaluate.main(arguments(evaluators="all")) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["positive"].startswith("known is the positive class")
    assert len(results["checkpoint"]["sha256"]) == 64
    assert results["checkpoint"]["step"] == 1
    (benchmark,) = results["benchmarks"]
    assert len(benchmark["pack"]["sha256"]) == 64
    assert [target["name"] for target in benchmark["targets"]] == ["day", "night"]
    day = benchmark["targets"][0]
    assert day["counts"] == {"references": 18, "tests": 30, "known": 18, "unknown": 12}
    assert set(day["evaluators"]) == set(EVALUATORS)
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
    assert f"| day | cosine | {auroc:.4f} |" in (out / "results.md").read_text()


def test_scores_do_not_depend_on_the_batch_size(arguments, tmp_path):
    found = []
    for size in (1, 5, 64):
        out = f"out{size}"
        words = arguments(out, evaluators="all", batch_size=size, no_cache=True, memory=1)
        assert evaluate.main(words) == 0
        found.append(scores(tmp_path / out))
    for other in found[1:]:
        assert_equal_scores(other, found[0])


def on_processes(count: int, words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc_per_node={count}", str(ROOT / "evaluate.py"), *words),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_scores_do_not_depend_on_the_number_of_processes(arguments, tmp_path):
    assert evaluate.main(arguments("one", evaluators="all", no_cache=True)) == 0
    done = on_processes(3, arguments("several", evaluators="all"))
    assert done.returncode == 0, done.stderr
    assert_equal_scores(scores(tmp_path / "several"), scores(tmp_path / "one"))
    # What they keep is what one process reads.
    assert evaluate.main(arguments("again", evaluators="all")) == 0
    assert_equal_scores(scores(tmp_path / "again"), scores(tmp_path / "one"))


def test_all_processes_end_where_the_first_cannot_write(arguments, tmp_path):
    (tmp_path / "out").write_text("not a folder")
    done = on_processes(2, arguments())
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ") and "is not a folder" in line]
    ours = rf'File "{ROOT}/(evaluat|runtime|pipelines)'  # the launcher's own traceback is not ours
    assert not re.search(ours, done.stderr)


def test_a_mistake_on_one_rank_is_its_line_and_ends_the_others(fail_on_rank_1, arguments):
    sabotage = "arguments.append('--target=dusk')"
    words = arguments(no_cache=True)
    (status, error), (mistake_status, mistake) = fail_on_rank_1(sabotage, "evaluate", *words)
    assert (status, mistake_status) == (1, 2)
    assert mistake.startswith("rank 1: ")
    assert "dusk" in mistake
    assert error.startswith("error: another process of this run has ended")
    assert mistake.count("\n") == error.count("\n") == 1


def test_ctrl_c_is_one_line_and_leaves_no_results(arguments, pack_path, tmp_path):
    words = [sys.executable, str(ROOT / "evaluate.py"), *arguments(resamples=10**6)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while str(pack_path) not in maps.read_text():  # it has opened the pack and begun its work
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error == "error: interrupted; rerun the same command to resume\n"
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_nothing_is_reported_if_the_loader_gives_other_images(arguments, tmp_path, monkeypatch):
    in_order = ImageLoader.__iter__

    def swapped(self):
        for batch in in_order(self):
            yield replace(batch, rows=batch.rows[::-1])

    monkeypatch.setattr(ImageLoader, "__iter__", swapped)
    with pytest.raises(RuntimeError, match="different images than requested"):
        evaluate.main(arguments())
    assert not (tmp_path / "out").exists()


def assert_equal_scores(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        if name.endswith(".normality"):
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
        else:
            assert found[name].tolist() == values.tolist()


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


def test_existing_results_are_replaced_only_when_asked(arguments, tmp_path, capsys):
    words = arguments(target="night")
    assert evaluate.main(words) == 0
    before = (tmp_path / "out" / "results.json").read_text()
    capsys.readouterr()
    assert "holds results; choose another --out, or give --overwrite" in refusal(words, capsys)
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


def damage(pack: Path, number: int) -> None:
    """Flip a bit in the middle of an image."""
    index = Pack(pack).index
    shard = sorted(pack.glob("shard-*.tar"))[index.shard[number]]
    content = bytearray(shard.read_bytes())
    content[int(index.offset[number] + index.size[number] // 2)] ^= 1
    shard.write_bytes(content)


def test_a_damaged_image_is_refused_and_its_features_are_not_kept(
    arguments, pack_path, tmp_path, capsys
):
    pack = tmp_path / "pack"
    shutil.copytree(pack_path, pack)
    damage(pack, 7)
    (key,) = Pack(pack).keys(np.array([7]))
    assert f"sample {key} of {pack} is damaged" in refusal(arguments(pack=pack), capsys)
    damage(pack, 7)  # the bit again: the pack is repaired
    assert evaluate.main(arguments(pack=pack)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["benchmarks"][0]["features"]["extracted"] == 60


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
    checkpoint = json.loads((tmp_path / "out" / "results.json").read_text())["checkpoint"]
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


def test_an_original_of_another_architecture_names_the_import(
    arguments, run_folder, tmp_path, capsys
):
    export_original(run_folder, tmp_path / "original")
    line = refusal(arguments(checkpoint=tmp_path / "original"), capsys)
    assert f"`python -m runtime import {tmp_path / 'original'} --out RUN --backbone" in line


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


def test_a_pack_of_another_data_set_is_not_taken_when_there_are_several(
    arguments, pack_path, capsys
):
    line = refusal(arguments(pack=f"{pack_path} {pack_path}"), capsys)
    assert "needs exactly one pack of imagefolder, 2 of the given packs match" in line


def test_few_shots_leave_that_many_references(arguments, tmp_path):
    assert evaluate.main(arguments(shots=2, seed=3)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["benchmarks"][0]["targets"][0]["counts"]["references"] == 6


def change_protocol(protocol_file, tmp_path, change) -> Path:
    content = yaml.safe_load(protocol_file.read_text())
    change(content)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["known"].append("torus"), "no class torus"),
        (
            lambda p: p["targets"]["day"]["reference"][0].update(domains=["oil"]),
            "no domain oil",
        ),
        (
            lambda p: p["targets"]["day"]["test"][0].update(splits=["late"]),
            "no split late",
        ),
        (
            lambda p: p["targets"]["day"]["reference"][0].update(classes=["cat", "ant"]),
            "no reference image of class bee",
        ),
        (
            lambda p: p["targets"]["day"]["test"][0].update(classes=["cat", "ant"]),
            "the test set has no unknown image",
        ),
        (
            lambda p: p["targets"]["day"]["test"][0].update(classes=["eel"]),
            "the test set has no known image",
        ),
    ],
)
def test_protocols_that_do_not_fit_the_pack_are_refused(
    arguments, protocol_file, tmp_path, capsys, change, message
):
    path = change_protocol(protocol_file, tmp_path, change)
    assert message in refusal(arguments(protocol=path), capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "oil"}, "has no target oil; it has: day, night"),
        ({"evaluators": "cosine magic"}, "no evaluator is called magic; choose all, or from"),
        ({"evaluators": "knn", "neighbors": 50}, "knn needs 50 neighbors, but there are 18"),
        ({"shots": 30}, "has 6 reference image(s), fewer than --shots 30"),
        ({"min_references": 7}, "has 6 reference image(s), fewer than 7"),
        ({"pack": "nowhere"}, "nowhere is not a complete pack"),
        ({"checkpoint": "nowhere"}, "no checkpoint at nowhere"),
        ({"protocol": "nowhere.yaml"}, "cannot read nowhere.yaml"),
        ({"resamples": 0}, "argument --resamples: invalid number '0'"),
        ({"colour": "red"}, "unrecognized arguments: --colour red"),
        ({"out": "/dev/null/x"}, "choose another --out"),
        ({"cache": "/dev/null/x"}, "choose another folder with --cache, or --no-cache"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments, capsys, options, message):
    assert message in refusal(arguments(**options), capsys)


def changed_run(run_folder, tmp_path, weights=lambda w: w, config=lambda c: c) -> Path:
    folder = run_folder / "checkpoints" / "step-00000001"
    state = load_file(folder / "weights.safetensors")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    run = tmp_path / "changed"
    checkpoint.save(run, 1, weights=weights(state), config=config(settings), metrics={})
    return run


def test_features_that_are_not_finite_are_refused(arguments, run_folder, tmp_path, capsys):
    def broken(state):
        return {**state, "backbone.conv1.0.weight": state["backbone.conv1.0.weight"] * 1e38}

    run = changed_run(run_folder, tmp_path, weights=broken)
    line = refusal(arguments(checkpoint=run), capsys)
    assert "NaN or infinite features for 60 of 60 images, first " in line


def test_a_checkpoint_of_another_backbone_is_refused(arguments, run_folder, tmp_path, capsys):
    def other(settings):
        return {**settings, "model": {**settings["model"], "backbone": "resnet18"}}

    run = changed_run(run_folder, tmp_path, config=other)
    assert "it is of a different architecture" in refusal(arguments(checkpoint=run), capsys)


def test_a_checkpoint_without_relation_is_refused(arguments, run_folder, tmp_path, capsys):
    def backbone_only(state):
        return {name: value for name, value in state.items() if name.startswith("backbone.")}

    run = changed_run(run_folder, tmp_path, weights=backbone_only)
    assert "has no relational module" in refusal(arguments(checkpoint=run), capsys)
