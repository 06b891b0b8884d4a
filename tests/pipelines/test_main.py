"""`python -m pipelines`: what a person looks at, and what is said to a mistake."""

import pytest
from PIL import Image

from pipelines.__main__ import main


def test_show_draws_the_pairs_that_training_sees(pack_path, tmp_path, capsys):
    page = tmp_path / "page.png"
    options = ["--out", str(page), "--pairs", "5", "--image-size", "32"]
    assert main(["show", str(pack_path), *options]) == 0
    assert f"5 pairs drawn on {page}" in capsys.readouterr().out
    with Image.open(page) as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 100


def test_several_packs_are_shown_as_one(pack_path, insects_path, tmp_path):
    page = tmp_path / "page.png"
    packs = [str(pack_path), str(insects_path)]
    assert main(["show", *packs, "--out", str(page), "--pairs", "2", "--image-size", "32"]) == 0
    assert page.stat().st_size > 0


def test_show_draws_the_pairs_of_a_group(pack_path, tmp_path, capsys):
    options = ["--out", str(tmp_path / "page.png"), "--pairs", "5", "--image-size", "32"]
    assert main(["show", str(pack_path), *options, "--classes", "3", "--images", "2"]) == 0
    assert "5 pairs drawn" in capsys.readouterr().out


# 54 pairs of 12 images each
GROUPS = ["--classes", "3", "--images", "4", "--num-negatives", "2", "--global-batch", "60"]


@pytest.mark.parametrize(
    ("options", "images_per_pair"), [(["--global-batch", "4"], 2), (GROUPS, 12 / 54)]
)
def test_bench_prints_the_rates(pack_path, capsys, options, images_per_pair):
    options = ["--steps", "3", *options, "--image-size", "32"]
    assert main(["bench", str(pack_path), *options]) == 0
    printed = capsys.readouterr().out
    rates = {}
    for line in printed.splitlines():
        if line.count("│") == 3:
            name, value = line.strip("│ ").split("│")
            rates[name.strip()] = float(value)
    expected = pytest.approx(images_per_pair * rates["pairs/s"], abs=2)
    assert rates["images/s"] == expected
    assert rates["CPU seconds per 1,000 images"] > 0
    assert rates["slowest step, ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench"], "required: pack"),
        (["bench", "nowhere"], "is not a complete pack"),
        (["show", "PACK", "--splits", "holiday"], "no split holiday"),
        (["show", "PACK", "--image-size", "0"], "--image-size"),
        (["show", "PACK", "--image-size", "99999"], "image_size is 99999"),
        (["show", "PACK", "--pairs", "0"], "--pairs"),
        (["show", "PACK", "--classes", "6"], "the selection has 5 classes"),
        (["show", "PACK", "--classes", "1"], "data.sampling.classes must be"),
        (["show", "PACK", "--out", "nowhere/page.png"], "nowhere/page.png"),
        (["show", "PACK", "--out", "page.doc"], "Format 'doc'"),
    ],
)
def test_a_mistake_gets_one_line(arguments, message, pack_path, tmp_path, monkeypatch, error_line):
    monkeypatch.chdir(tmp_path)
    arguments = [str(pack_path) if word == "PACK" else word for word in arguments]
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert message in error_line()
