"""What `evaluate.py` refuses: each is one line, and no results are written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

import evaluate
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from runtime import checkpoint
from runtime.original import export_original


def test_nothing_is_reported_if_the_loader_gives_other_images(arguments, tmp_path, monkeypatch):
    in_order = ImageLoader.__iter__

    def swapped(self):
        for batch in in_order(self):
            yield replace(batch, rows=batch.rows[::-1])

    monkeypatch.setattr(ImageLoader, "__iter__", swapped)
    with pytest.raises(RuntimeError, match="different images than requested"):
        evaluate.main(arguments())
    assert not (tmp_path / "out").exists()


def damage(pack: Path, number: int) -> None:
    """Flip a bit in the middle of an image."""
    index = Pack(pack).index
    shard = sorted(pack.glob("shard-*.tar"))[index.shard[number]]
    content = bytearray(shard.read_bytes())
    content[int(index.offset[number] + index.size[number] // 2)] ^= 1
    shard.write_bytes(content)


def test_a_damaged_image_is_refused_and_its_features_are_not_kept(
    arguments, pack_path, tmp_path, refusal
):
    pack = tmp_path / "pack"
    shutil.copytree(pack_path, pack)
    damage(pack, 7)
    (key,) = Pack(pack).keys(np.array([7]))
    assert f"sample {key} of {pack} is damaged" in refusal(arguments(pack=pack))
    damage(pack, 7)  # the bit again: the pack is repaired
    assert evaluate.main(arguments(pack=pack)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["benchmarks"][0]["features"]["extracted"] == 60


def test_an_original_of_another_architecture_names_the_import(
    arguments, run_folder, tmp_path, refusal
):
    export_original(run_folder, tmp_path / "original")
    line = refusal(arguments(checkpoint=tmp_path / "original"))
    assert f"`python -m runtime import {tmp_path / 'original'} --out RUN --backbone" in line


def test_a_pack_of_another_data_set_is_not_taken_when_there_are_several(
    arguments, pack_path, refusal
):
    line = refusal(arguments(pack=f"{pack_path} {pack_path}"))
    assert "needs exactly one pack of imagefolder, 2 of the given packs match" in line


def change_protocol(protocol_file, tmp_path, change) -> Path:
    content = yaml.safe_load(protocol_file.read_text())
    change(content)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_two_protocols_of_one_name_are_refused(arguments, protocol_file, tmp_path, refusal):
    other = change_protocol(protocol_file, tmp_path, lambda p: p["known"].reverse())
    line = refusal(arguments(protocol=f"{protocol_file} {other}"))
    assert f"{other} is the second protocol named" in line


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
    arguments, protocol_file, tmp_path, change, message, refusal
):
    path = change_protocol(protocol_file, tmp_path, change)
    assert message in refusal(arguments(protocol=path))


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
def test_options_that_cannot_work_are_refused(arguments, options, message, refusal):
    assert message in refusal(arguments(**options))


def changed_run(run_folder, tmp_path, weights=lambda w: w, config=lambda c: c) -> Path:
    folder = run_folder / "checkpoints" / "step-00000001"
    state = load_file(folder / "weights.safetensors")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    run = tmp_path / "changed"
    checkpoint.save(run, 1, weights=weights(state), config=config(settings), metrics={})
    return run


def test_features_that_are_not_finite_are_refused(arguments, run_folder, tmp_path, refusal):
    def broken(state):
        return {**state, "backbone.conv1.0.weight": state["backbone.conv1.0.weight"] * 1e38}

    run = changed_run(run_folder, tmp_path, weights=broken)
    line = refusal(arguments(checkpoint=run))
    assert "NaN or infinite features for 60 of 60 images, first " in line


def test_a_checkpoint_of_another_backbone_is_refused(arguments, run_folder, tmp_path, refusal):
    def other(settings):
        return {**settings, "model": {**settings["model"], "backbone": "resnet18"}}

    run = changed_run(run_folder, tmp_path, config=other)
    assert "resnet18 needs more than its" in refusal(arguments(checkpoint=run))


def test_a_checkpoint_without_relation_is_refused(arguments, run_folder, tmp_path, refusal):
    def backbone_only(state):
        return {name: value for name, value in state.items() if name.startswith("backbone.")}

    run = changed_run(run_folder, tmp_path, weights=backbone_only)
    assert "has no relational module" in refusal(arguments(checkpoint=run))
