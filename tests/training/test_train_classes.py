"""Training on groups of classes, whose images are decoded once for many pairs."""

import json

import pytest
import yaml

from runtime.checkpoint import newest
from tests.commands import Command
from tests.common import ROOT, tiny_run
from tests.training.runs import assert_same_weights, forget_newest, logged
from train_ddp import main

SAMPLING = {"kind": "classes", "classes": 3, "images": 4, "negatives": 2, "groups": 4}
PAIRS, IMAGES = 4 * 3 * 6 * 3, 4 * 3 * 4


@pytest.fixture
def config_file(pack_path, tmp_path):
    config = tiny_run(pack_path, data={"sampling": SAMPLING}, model={"similarity_start": True})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_run_says_and_logs_images_and_pairs(train, tmp_path, capsys):
    assert train("--train.iterations=2") == 0
    out = capsys.readouterr().out
    assert f"2 steps of {PAIRS} pairs" in out
    assert f"4 groups of 3 classes x 4 images = {IMAGES} images per step, of which {PAIRS}" in out
    record = logged(tmp_path / "run")[-1]
    ratio = record["images_per_second"] / record["pairs_per_second"]
    assert ratio == pytest.approx(IMAGES / PAIRS, rel=1e-4)
    assert 0 <= record["accuracy_same"] <= 1
    assert newest(tmp_path / "run").config["train"]["global_batch"] == PAIRS


def test_a_dry_run_counts_the_backbone_once_for_each_image(train, capsys):
    assert train("--dry-run", "--train.pairs_at_once=9") == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out.split("\n\n")[0])["train"]["global_batch"] == PAIRS
    assert f"{PAIRS} pairs at a time" in out


OPTIONS = [
    [],
    ["--train.pairs_at_once=10"],
    ["--train.accumulate=4"],
    ["--data.sampling.mean_partners=true", "--data.sampling.same_domain_negatives=true"],
    ["--data.sampling.cross_domain=true", "--train.precision=bfloat16"],
    ["--data.sampling.hard_negatives=1", "--data.sampling.mean_partners=true"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options)[:40])
def test_resuming_equals_an_uninterrupted_run_bit_for_bit(train, tmp_path, options):
    assert train(*options) == 0
    forget_newest(tmp_path / "run", tmp_path / "parts")
    assert train(*options, run="parts") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=0, atol=0)


def test_any_split_of_the_groups_gives_the_same_run(train, tmp_path):
    train()
    for number, options in enumerate((["--train.accumulate=4"], ["--train.pairs_at_once=7"])):
        train(*options, run=str(number))
        assert_same_weights(tmp_path / "run", tmp_path / str(number), rtol=1e-3, atol=1e-5)


def test_two_and_four_ranks_train_as_one_and_continue_each_other(
    train, runner, config_file, tmp_path
):
    hard = "--data.sampling.hard_negatives=1"
    train(hard)

    def torchrun(ranks, *options):
        words = [f"--nproc-per-node={ranks}", "--standalone", "--run-path", "--start-method=fork"]
        words += [ROOT / "train_ddp.py", "--config", config_file, "--out", tmp_path / "ranks"]
        module = "torch.distributed.run"
        words = [str(word) for word in (*words, hard, *options)]
        (outcome,) = runner.run(Command("train", module, words, ROOT, timeout=200))
        assert outcome.status == 0, outcome

    torchrun(4, "--train.iterations=4", "--train.pairs_at_once=10")
    torchrun(2, "--train.accumulate=2")
    assert_same_weights(tmp_path / "run", tmp_path / "ranks", rtol=1e-3, atol=1e-5)
    losses = [[record["loss"] for record in logged(tmp_path / name)] for name in ("run", "ranks")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_hard_negatives_are_said_and_change_the_pairs_from_the_first_step(train, tmp_path, capsys):
    train("--train.iterations=1")
    capsys.readouterr()
    train("--train.iterations=1", "--data.sampling.hard_negatives=2", run="hard")
    assert "2 of the 2 negatives of each positive pair are chosen by sim" in capsys.readouterr().out
    plain, hard = (logged(tmp_path / name)[0]["loss"] for name in ("run", "hard"))
    assert hard > plain


def test_a_run_begun_before_hard_negatives_continues(train, tmp_path):
    train("--train.iterations=1")
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["sampling"].pop("hard_negatives") == 0
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "checksums.json").unlink()
    assert train("--train.iterations=2") == 0


def test_linear_scaling_changes_the_number_of_groups(train, capsys):
    options = ["--scale=linear", "--train.recipe_ranks=2", "--dry-run"]
    assert train(*options) == 0
    resolved = yaml.safe_load(capsys.readouterr().out.split("\n\n")[0])
    assert resolved["data"]["sampling"]["groups"] == 2
    assert resolved["train"]["global_batch"] == PAIRS // 2
    assert resolved["optimizer"]["lr"] == pytest.approx(0.005)
    assert resolved["train"]["iterations"] == 12


def test_a_scaled_run_is_continued_with_its_own_groups(train, tmp_path):
    options = ["--scale=linear", "--train.recipe_ranks=2"]
    assert train(*options, "--train.iterations=2") == 0
    assert train(*options, "--train.accumulate=2", "--train.iterations=3") == 0
    assert newest(tmp_path / "run").config["data"]["sampling"]["groups"] == 2


def test_classification_trains_on_the_images_of_the_groups(train, tmp_path):
    assert train("--task=classification", "--train.iterations=1") == 0
    assert "accuracy" in logged(tmp_path / "run")[-1]


def test_divergence_reports_the_pairs_of_the_step(train, tmp_path, capsys):
    options = ["--optimizer.lr=1e30", "--log.every=100", "--data.sampling.mean_partners=true"]
    assert train(*options) == 1
    report = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert len(report["anchors"]) == len(report["partners"]) == PAIRS


def test_small_classes_are_counted_and_said(train, capsys):
    assert train("--train.iterations=1", "--data.sampling.images=14") == 0
    assert "5 of 5 classes have fewer than 14 images, which repeat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.sampling.classes=6"], "data.sampling.classes is 6, the selection has 5 classes"),
        (["--train.accumulate=3"], "data.sampling.groups 4 cannot be shared equally by 1 proc"),
        (["--data.sampling.kind=pk"], "data.sampling.kind must be one of independent, classes"),
        (["--data.sampling.cross_domain=true", "--data.domains=[day]"], "several domains"),
        (["--data.sampling.mean_partners=true", "--data.sampling.images=2"], "3 or more, not 2"),
        (["--data.sampling.hard_negatives=3"], "hard_negatives is 3, of data.sampling.negatives 2"),
        (["--data.sampling.hard_negatives=-1"], "data.sampling.hard_negatives must be"),
        (["--data.sampling.groups=60000000"], "data.sampling.groups"),
        (["--data.sampling.groups=1000000"], "pairs per step; at most 16,777,216"),
        (["--scale=linear", "--train.recipe_ranks=3"], "data.sampling.groups 4 is not a multiple"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(train, error_line, options, words):
    assert train(*options) == 2
    assert words in error_line()


def test_weights_of_packs_are_refused(pack_path, insects_path, tmp_path, error_line):
    config = tiny_run(pack_path)
    packs = [{"pack": str(pack_path)}, {"pack": str(insects_path), "weight": 2}]
    config["data"] = {"packs": packs, "sampling": SAMPLING}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["--config", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "data.packs.weight needs data.sampling.kind independent" in error_line()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.sampling.kind=independent"], "data.sampling"),
        (["--data.sampling.negatives=3"], "data.sampling"),
        (["--data.sampling.hard_negatives=1"], "data.sampling"),
        (["--data.sampling.groups=2"], "data.sampling"),
    ],
)
def test_another_sampling_is_not_continued(train, capsys, error_line, options, words):
    train("--train.iterations=1")
    capsys.readouterr()
    assert train(*options) == 2
    assert words in error_line()
