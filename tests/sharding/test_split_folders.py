"""Folders called after splits: which are read as splits, and how a user decides it."""

import pytest

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format.opening import open_pack
from sharding.sources.imagefolder import ImageFolderOptions, imagefolder


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def listed(dataset):
    """Each source with its domain, split and class."""
    return {
        sample.source: (
            dataset.domains[sample.domain],
            dataset.splits[sample.split],
            dataset.classes[sample.label],
        )
        for sample in dataset.samples()
    }


def test_torchvisions_train_and_val_folders_are_splits(tmp_path):
    make(tmp_path, "train/ant/1.jpg", "train/bee/1.jpg", "val/ant/2.jpg", "test/bee/3.jpg")
    dataset = imagefolder(tmp_path)
    assert dataset.domains == ("default",)
    assert dataset.splits == ("train", "val", "test")
    assert listed(dataset) == {
        "train/ant/1.jpg": ("default", "train", "ant"),
        "train/bee/1.jpg": ("default", "train", "bee"),
        "val/ant/2.jpg": ("default", "val", "ant"),
        "test/bee/3.jpg": ("default", "test", "bee"),
    }
    assert dataset.found.startswith("folders of splits: train/, val/, test/; `--splits none`")
    assert not dataset.notes


@pytest.mark.parametrize("path", ["{split}/{domain}/ant/1.jpg", "{domain}/{split}/ant/1.jpg"])
def test_splits_may_be_above_or_below_the_domains(path, tmp_path):
    places = [(domain, split) for domain in ("day", "night") for split in ("Train", "Val")]
    expected = {path.format(domain=d, split=s): (d, s, "ant") for d, s in places}
    dataset = imagefolder(make(tmp_path, *expected))
    assert (dataset.domains, dataset.splits) == (("day", "night"), ("Train", "Val"))
    assert listed(dataset) == expected


def test_splits_are_read_as_domains_on_request(tmp_path):
    make(tmp_path, "train/ant/1.jpg", "val/ant/2.jpg")
    dataset = imagefolder(tmp_path, ImageFolderOptions(splits=["none"]))
    assert (dataset.domains, dataset.splits) == (("train", "val"), ("all",))
    assert not dataset.found


def test_splits_of_any_name_are_read_on_request_and_the_rest_is_noted(tmp_path):
    make(tmp_path, "fit/ant/1.jpg", "holdout/ant/2.jpg", "raw/ant/3.jpg")
    dataset = imagefolder(tmp_path, ImageFolderOptions(splits=["holdout", "fit"]))
    assert dataset.splits == ("holdout", "fit")
    assert len(listed(dataset)) == 2
    (note,) = dataset.notes
    assert "raw/ left out" in note


@pytest.mark.parametrize(
    "paths",
    [
        ["day/ant/1.jpg", "test/ant/1.jpg"],  # one domain is called test
        ["day/ant/1.jpg", "day/train/1.jpg"],  # a class is called train
        ["day/train/1.jpg", "night/train/1.jpg"],  # all classes are
    ],
)
def test_domains_and_classes_called_like_splits_stay_what_they_are(paths, tmp_path):
    dataset = imagefolder(make(tmp_path, *paths))
    assert dataset.splits == ("all",)
    assert [sample.source for sample in dataset.samples()] == paths
    assert {path.split("/")[1] for path in paths} == set(dataset.classes)


def test_a_class_tree_may_have_a_class_called_like_a_split(tmp_path):
    dataset = imagefolder(make(tmp_path, "train/1.jpg", "test/1.jpg"))
    assert (dataset.classes, dataset.splits) == (("test", "train"), ("all",))


@pytest.mark.parametrize(
    ("paths", "splits", "message"),
    [
        (["train/ant/1.jpg"], ["train", "val"], "has no folder val with class folders"),
        (["train/ant/1.jpg", "val/1.jpg"], ["train", "val"], "has no folder val with class"),
        (["train/ant/1.jpg", "val/day/ant/1.jpg"], None, "train/ holds classes but val/day/ is"),
    ],
    ids=["absent", "flat", "uneven"],
)
def test_splits_that_are_not_there_are_an_error(paths, splits, message, tmp_path):
    with pytest.raises(PackError, match=message):
        imagefolder(make(tmp_path, *paths), ImageFolderOptions(splits))


def test_splits_reach_the_pack_and_verify_repairs_it(image_tree, tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / "tree" / split).mkdir(parents=True)
        for class_ in ("ant", "bee"):
            (tmp_path / "tree" / split / class_).symlink_to(image_tree / "day" / class_)
    pack, root = str(tmp_path / "pack"), str(tmp_path / "tree")
    assert main(["pack", "imagefolder", "--root", root, "--out", pack, "--name", "mine"]) == 0
    contents = open_pack(tmp_path / "pack")
    assert (contents.manifest.dataset, contents.manifest.splits) == ("mine", ("train", "val"))
    assert contents.index.split.tolist() == [0] * 12 + [1] * 12
    (tmp_path / "pack" / "shard-000000.idx").unlink()
    assert main(["verify", pack, "--repair", "--root", root]) == 2
    assert "by the command that packed it, with --repair" in capsys.readouterr().err
    command = ["pack", "imagefolder", "--root", root, "--out", pack, "--name", "mine", "--repair"]
    assert main(command) == 0
    assert main(["verify", pack]) == 0
