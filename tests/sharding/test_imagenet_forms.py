"""ImageNet in each form: the same images and names; what is wrong is said in one line."""

import gzip
import io
import os
import re
import shlex
import shutil
import struct
import sys
import zlib
from pathlib import Path

import imagenet_forms as forms
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy.io import savemat

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format.opening import open_pack
from sharding.sources.containers.container import Container
from sharding.sources.containers.gzip_archives import GzipScan
from sharding.sources.dataset import Sample
from sharding.sources.imagenet import devkit
from sharding.sources.imagenet.forms import imagenet
from sharding.sources.imagenet.synsets import ILSVRC2012

CLASSES = forms.VAL_SYNSETS[:3]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The folder of each form."""
    root = tmp_path_factory.mktemp("imagenet")
    for name, make in forms.MAKERS.items():
        make(root / name)
    return {name: root / name for name in forms.MAKERS}


@pytest.fixture
def tars(roots, tmp_path):
    """A copy of the tars that a test may damage."""
    return shutil.copytree(roots["tars"], tmp_path / "tars")


def pack(root, out, *options, name="imagenet"):
    command = ["pack", name, "--root", str(root), "--out", str(out), "--workers", "1"]
    assert main([*command, *map(str, options)]) == 0
    return open_pack(out)


def content(contents):
    """Source, class and checksum of each image of a pack."""
    manifest, index = contents.manifest, contents.index
    sources = contents.read_sources().to_pylist()
    classes = [manifest.classes[label] for label in index.label]
    return set(zip(sources, classes, index.crc32.tolist(), index.split.tolist()))


def failure(capsys, root, *options, name="imagenet"):
    """The one line with which packing ``root`` fails."""
    command = ["pack", name, "--root", str(root), "--out", str(root / "pack"), *map(str, options)]
    assert main(command) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def packs(roots, tmp_path_factory):
    """The complete packs of the forms that are compared byte by byte."""
    folder = tmp_path_factory.mktemp("packs")
    return {name: pack(roots[name], folder / name) for name in ("kaggle", "tars")}


@pytest.fixture(scope="module")
def classes_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    path.write_text("\n".join(f"{synset} its words" for synset in reversed(CLASSES)) + "\n")
    return path


def test_the_tar_of_tars_gives_the_bytes_of_the_unpacked_tree(packs):
    tree, tars = packs["kaggle"], packs["tars"]
    assert [shard.sha256 for shard in tars.manifest.shards] == [
        shard.sha256 for shard in tree.manifest.shards
    ]
    assert tars.manifest.index == tree.manifest.index
    assert tars.manifest.options == tree.manifest.options
    assert tars.manifest.splits == ("train", "val")
    assert tars.manifest.classes == ILSVRC2012


def test_the_images_and_their_classes_are_those_of_the_data_set(packs):
    found = content(packs["tars"])
    assert {source: class_ for source, class_, *_ in found} == {
        **{f"train/{synset}/{image}.JPEG": synset for synset, image in forms.TRAIN},
        **{f"val/{image}.JPEG": synset for image, synset in zip(forms.VAL, forms.VAL_SYNSETS)},
    }


PAGE = (Path(__file__).parents[2] / "docs" / "forms.md").read_text()
COMMANDS = re.findall(
    r"^\| ([^|]+) \| `python -m sharding (pack imagenet[^`]+)` \|$", PAGE, re.MULTILINE
)
IMITATIONS = {
    "Kaggle's": forms.make_kaggle,
    "torchvision's": forms.make_torchvision,
    "`ILSVRC2012_img_train.tar`": forms.make_tars,
    "Hugging Face's `train_images": forms.make_archives,
    "Hugging Face's Parquet": forms.make_parquet,
    "the WebDataset": forms.make_webdataset,
    "some of its classes": forms.make_tars,
    "ImageNet-21k": forms.make_torchvision,
    "the same as tars": forms.make_synset_tars,
}


@pytest.mark.parametrize(("form", "command"), COMMANDS, ids=[form for form, _ in COMMANDS])
def test_the_documented_command_of_a_form_packs_it(form, command, tmp_path, monkeypatch):
    (make,) = (make for start, make in IMITATIONS.items() if form.startswith(start))
    make(tmp_path / "ROOT")
    (tmp_path / "SYNSETS.txt").write_text("\n".join(CLASSES))
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command), "--workers", "1"]) == 0
    contents = open_pack(tmp_path / "PACK")
    assert contents.manifest.rejects == 0
    assert len(contents.manifest.classes) == (3 if "--classes" in command else 1000)


def test_every_imitation_of_imagenet_has_a_row():
    assert len(COMMANDS) == len(IMITATIONS)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("kaggle", "1,000 synset folders in train/, train and val with 3 classes"),
        ("tars", "ILSVRC2012_img_train.tar, train and val with 3 classes"),
        ("archives", "7 .tar.gz archives of images, train and val with 3 classes"),
        ("parquet", "5 Parquet files, train and val with 3 classes"),
        ("webdataset", "3 WebDataset shards, train and val with 3 classes"),
    ],
)
def test_each_form_gives_the_same_images_under_the_same_names(
    form, says, roots, classes_file, tmp_path, capsys
):
    contents = pack(roots[form], tmp_path / "pack", "--classes", classes_file)
    assert f"{roots[form]}: {says}" in capsys.readouterr().err
    assert contents.manifest.classes == tuple(sorted(CLASSES))
    assert content(contents) == expected(CLASSES)


def expected(synsets):
    train = {
        (f"train/{of}/{image}.JPEG", of, zlib.crc32(image_bytes), 0)
        for (of, image), image_bytes in forms.TRAIN.items()
        if of in synsets
    }
    return train | {
        (f"val/{image}.JPEG", of, zlib.crc32(forms.VAL[image]), 1)
        for image, of in zip(forms.VAL, forms.VAL_SYNSETS)
        if of in synsets
    }


def test_without_classes_all_thousand_synsets_are_packed_from_archives(roots, tmp_path):
    contents = pack(roots["archives"], tmp_path / "pack", "--shard-size", "300KB")
    assert contents.manifest.classes == ILSVRC2012
    assert len(contents.manifest.shards) > 3
    assert content(contents) == expected(ILSVRC2012)


def test_workers_find_the_access_points_with_the_listing(roots, monkeypatch, tmp_path):
    """One pass over each archive finds them; none of those who read makes a second one."""
    dataset = imagenet(roots["archives"])
    samples = list(dataset.samples())
    read = dataset.reader(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"access-points-{number}" for number in range(6)
    ]
    monkeypatch.setattr("sharding.sources.containers.gzip_archives._BEYOND", None)
    for sample in (samples[0], samples[450], samples[-1], samples[3]):
        assert read(sample) == dict(images(samples))[sample.source]


def images(samples):
    for sample in samples:
        _, *parents, name = sample.source.split("/")
        image = name.removesuffix(".JPEG")
        yield sample.source, forms.TRAIN[parents[0], image] if parents else forms.VAL[image]


def test_a_gzip_archive_is_read_in_blocks_between_its_access_points(monkeypatch, tmp_path):
    monkeypatch.setattr("sharding.sources.containers.gzip_archives.SPACING", 2**16)
    monkeypatch.setattr("sharding.sources.containers.gzip_archives._INFLATED_AT_ONCE", 50_000)
    random = np.random.default_rng(0)
    files = {f"{number}.JPEG": random.bytes(20_000 + number) for number in range(40)}
    forms.write(tmp_path / "a.tar.gz", gzip.compress(forms.tar(files.items())))
    scan = GzipScan((Container.at(tmp_path / "a.tar.gz"),))
    found = [member for _, member in scan.members()]
    read = scan.keep(tmp_path)
    assert (tmp_path / "access-points-0").stat().st_size > 5 * 2**15
    for name, offset, size in [*found, *found[::-7]]:
        assert read(Sample(name, size, 0, offset=offset)) == files[name]


def test_torchvisions_validation_folders_keep_their_names(roots):
    dataset = imagenet(roots["torchvision"])
    assert {sample.source for sample in dataset.samples() if sample.split == 1} == {
        f"val/{of}/{image}.JPEG" for image, of in zip(forms.VAL, forms.VAL_SYNSETS)
    }


def test_training_images_alone_are_named_as_in_the_training_folder(tars):
    (tars / "ILSVRC2012_img_val.tar").unlink()
    dataset = imagenet(tars)
    assert dataset.splits == ("train",)
    assert next(dataset.samples()).source == "n01440764/n01440764_0.JPEG"


def test_the_unpacked_development_kit_is_read(tars):
    (tars / devkit.ARCHIVE).unlink()
    for name, file in forms.devkit().items():
        forms.write(tars / "ILSVRC2012_devkit_t12" / name, file)
    assert sum(sample.split for sample in imagenet(tars).samples()) == len(forms.VAL)


def test_a_validation_tar_without_the_kit_is_left_out_with_a_note(tars):
    (tars / devkit.ARCHIVE).unlink()
    dataset = imagenet(tars)
    assert dataset.splits == ("train",)
    (note,) = dataset.notes
    assert "ILSVRC2012_img_val.tar has no labels and is left out; put ILSVRC2012_devkit" in note


def test_of_two_forms_in_a_folder_the_unpacked_one_is_packed_and_the_other_noted(roots, tmp_path):
    for form in ("torchvision", "tars"):
        shutil.copytree(roots[form], tmp_path, dirs_exist_ok=True)
    dataset = imagenet(tmp_path)
    assert dataset.found.startswith("1,000 synset folders in train/")
    (note,) = dataset.notes
    assert "ILSVRC2012_img_train.tar left out, since there are also 1,000 synset folders" in note


def test_a_pack_of_tars_is_repaired_from_the_unpacked_tree(packs, roots, tmp_path, capsys):
    out = shutil.copytree(packs["tars"].path, tmp_path / "pack")
    with (out / "shard-000000.tar").open("r+b") as shard:
        shard.seek(600)
        shard.write(b"damage")
    command = ["verify", str(out), "--repair", "--root", str(roots["kaggle"]), "--workers", "1"]
    assert main(command) == 0
    assert "repaired, now intact" in capsys.readouterr().out


def test_any_number_of_synsets_is_packed_as_imagenet21k(tmp_path):
    synsets = ILSVRC2012[5:8]
    for number, synset in enumerate(synsets):
        forms.write(tmp_path / "tree" / "train" / synset / "1.JPEG", forms.jpeg(number))
    forms.write(tmp_path / "tree" / "val" / synsets[1] / "2.JPEG", forms.jpeg(9))
    tree = pack(tmp_path / "tree", tmp_path / "a", name="imagenet21k")
    assert tree.manifest.dataset == "imagenet21k"
    assert tree.manifest.classes == synsets
    assert tree.read_sources().to_pylist()[-1] == f"val/{synsets[1]}/2.JPEG"
    assert tree.index.label.tolist()[-1] == 1


def test_a_folder_or_a_tar_of_synset_tars_is_packed_as_imagenet21k(tmp_path):
    synsets = ILSVRC2012[5:8]
    forms.make_synset_tars(tmp_path / "tars", synsets)
    whole = forms.tar((f"{synset}.tar", forms.synset_tar(synset)) for synset in synsets)
    forms.write(tmp_path / "whole" / "fall11_whole.tar", whole)
    packs = [
        pack(tmp_path / form, tmp_path / f"{form}.pack", name="imagenet21k")
        for form in ("tars", "whole")
    ]
    assert packs[0].manifest == packs[1].manifest
    assert packs[0].manifest.classes == synsets
    assert set(packs[0].read_sources().to_pylist()) == {
        f"{synset}/{image}.JPEG" for synset, image in forms.TRAIN if synset in synsets
    }


def test_damaged_images_in_archives_are_rejected_by_name(tmp_path):
    damaged = {"n01440764_0.JPEG": b"not an image", "readme.txt": b"hello"}
    synset, other = ILSVRC2012[0], ILSVRC2012[1]
    forms.write(tmp_path / "t" / f"{synset}.tar", forms.tar(damaged.items()))
    forms.write(
        tmp_path / "t" / f"{other}.tar", forms.tar([("empty.JPEG", b""), ("1.JPEG", forms.jpeg(1))])
    )
    contents = pack(tmp_path / "t", tmp_path / "pack", name="imagenet21k")
    rejects = (tmp_path / "pack" / "rejects.jsonl").read_text()
    assert contents.manifest.samples == 1
    for name in (f"{synset}/n01440764_0.JPEG", f"{synset}/readme.txt", f"{other}/empty.JPEG"):
        assert f'"{name}"' in rejects


TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def test_a_download_that_is_an_error_page_says_what_it_begins_with(tars, capsys):
    (tars / TRAIN_TAR).write_text("<!DOCTYPE html>\n<html>Please log in</html>\n" * 50)
    assert f"{TRAIN_TAR} is not a tar archive, it begins with '<!DOCTYPE html>'" in failure(
        capsys, tars
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_tar_is_an_error(share, tars, capsys):
    content = forms.train_tar()
    (tars / TRAIN_TAR).write_bytes(content[: int(len(content) * share)])
    line = failure(capsys, tars)
    assert f"{TRAIN_TAR} is " in line
    assert "truncated or damaged after" in line or "not a tar archive" in line


def test_a_tar_that_ends_between_two_members_is_an_error(tars, capsys):
    first = len(forms.synset_tar(ILSVRC2012[0])) + 512
    (tars / TRAIN_TAR).write_bytes(forms.train_tar()[:first])
    assert "truncated or damaged after 'n01440764.tar': it lacks its end" in failure(capsys, tars)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("n01440764", "expected 1000 synsets like n01440764, found 1"),
        ("train/n01440764/1.JPEG", "expected one tar for each synset"),
        ("../n01440764.tar", "leads out of the archive"),
        ("/n01440764.tar", "leads out of the archive"),
    ],
)
def test_a_tar_of_something_else_is_an_error(member, message, tars, capsys):
    members = [(f"{member}.tar" if member.startswith("n") else member, forms.tar([]))]
    (tars / TRAIN_TAR).write_bytes(forms.tar(members))
    assert message in failure(capsys, tars)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/b/1.JPEG", b"1")], "n01440764.tar in .*holds 'a/b/1.JPEG'; expected images"),
        ([("n1.tar", b"1")], "n01440764.tar in .*holds 'n1.tar'; expected images"),
        ([("1.JPEG", b"1"), ("1.JPEG", b"2")], "'n01440764/1.JPEG' is in the data set twice"),
        ([("../1.JPEG", b"1")], "n01440764.tar in .*leads out of the archive"),
    ],
    ids=["folder", "archive", "twice", "outside"],
)
def test_a_synset_tar_that_holds_something_else_is_an_error(members, message, tmp_path, capsys):
    whole = forms.tar([("n01440764.tar", forms.tar(members))])
    forms.write(tmp_path / "fall11_whole.tar", whole)
    assert re.search(message, failure(capsys, tmp_path, name="imagenet21k"))


def test_a_synset_tar_that_comes_twice_is_an_error(tmp_path, capsys):
    member = ("n01440764.tar", forms.synset_tar("n01440764"))
    forms.write(tmp_path / "fall11_whole.tar", forms.tar([member, member]))
    assert "holds 'n01440764.tar'; expected one" in failure(capsys, tmp_path, name="imagenet21k")


def test_an_archive_that_changed_after_it_was_found_is_an_error(tars):
    dataset = imagenet(tars)
    sample = next(dataset.samples())
    assert dataset.read(sample) == forms.jpeg(0)
    os.utime(tars / TRAIN_TAR)  # while it is open
    with pytest.raises(PackError, match=r"img_train\.tar changed after the tree was listed"):
        dataset.read(sample)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (forms.devkit([1] * 11), "holds 12 images, the ground truth 11"),
        (forms.devkit([1] * 11 + [0]), "line 12: expected an ID from 1 to 1000"),
        (forms.devkit([1001] * 12), "line 1: expected an ID from 1 to 1000"),
        (forms.devkit([]), "line 1: expected an ID"),
        (forms.devkit() | {"data/meta.mat": b"MATLAB 5.0 MAT-file" * 40}, "meta.mat .* is damaged"),
        ({"data/meta.mat": b""}, "lacks data/ILSVRC2012_validation_ground_truth.txt"),
    ],
    ids=["length", "zero", "beyond", "empty", "meta", "missing"],
)
def test_a_kit_that_does_not_label_the_validation_images_is_an_error(files, message, tars, capsys):
    (tars / devkit.ARCHIVE).write_bytes(forms.devkit_archive(files))
    assert re.search(message, failure(capsys, tars))


def test_a_meta_file_that_asks_for_too_much_memory_is_an_error(tars, capsys):
    """The shape of its array is changed to 2^31 - 1 structs."""
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.zeros((77, 1), dtype=[("WNID", object)])})
    wide = meta.getvalue().replace(struct.pack("<ii", 77, 1), struct.pack("<ii", 2**31 - 1, 1))
    assert wide != meta.getvalue()
    files = forms.devkit() | {"data/meta.mat": wide}
    (tars / devkit.ARCHIVE).write_bytes(forms.devkit_archive(files))
    assert "meta.mat in " in failure(capsys, tars)


def test_a_validation_tar_with_other_names_is_an_error(tars, capsys):
    members = [(f"image{number:02d}.JPEG", b"1") for number in range(12)]
    (tars / VAL_TAR).write_bytes(forms.tar(members))
    assert "holds 'image00.JPEG'; expected ILSVRC2012_val_00000001.JPEG" in failure(capsys, tars)


@pytest.fixture
def archives(roots, tmp_path):
    """A copy of the .tar.gz archives that a test may damage."""
    return shutil.copytree(roots["archives"], tmp_path / "archives")


def test_a_missing_archive_is_an_error(archives, capsys):
    (archives / "data" / "train_images_3.tar.gz").unlink()
    assert "1 of the 5 files of the train split are missing, number 3" in failure(capsys, archives)


@pytest.mark.parametrize("damage", ["middle", "checksum", "truncated", "page"])
def test_a_damaged_archive_is_an_error(damage, archives, capsys):
    path = archives / "data" / "train_images_2.tar.gz"
    content = bytearray(path.read_bytes())
    if damage == "middle":
        content[len(content) // 2] ^= 0xFF
    elif damage == "checksum":
        content[-8] ^= 0xFF
    elif damage == "truncated":
        del content[-2:]
    else:
        content[:] = b"<html>"
    path.write_bytes(content)
    line = failure(capsys, archives)
    assert "train_images_2.tar.gz is not a gzip file, or is truncated or damaged" in line


def test_an_archive_whose_names_state_no_synset_is_an_error(archives, capsys):
    path = archives / "data" / "train_images_0.tar.gz"
    path.write_bytes(gzip.compress(forms.tar([("1.JPEG", b"1")])))
    assert "holds '1.JPEG'; expected names with a synset" in failure(capsys, archives)


def test_without_indexed_gzip_the_error_names_it(archives, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "indexed_gzip", None)
    assert "pip install indexed_gzip" in failure(capsys, archives)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1000], "row 1: label 1000"),
        ([0, None], "row 1: label None"),
        ([1, 1], "row 0: label 1"),
    ],
)
def test_a_label_that_is_not_the_images_is_an_error(labels, message, tmp_path, capsys):
    image = {"bytes": forms.jpeg(0), "path": "n01440764_1_n01440764.JPEG"}
    rows = pa.table({"image": [image] * 2, "label": pa.array(labels, pa.int64())})
    parquet.write_table(rows, tmp_path / "train-00000-of-00001.parquet")
    assert message in failure(capsys, tmp_path)


def test_missing_and_damaged_parquet_files_are_errors(roots, tmp_path, capsys):
    root = shutil.copytree(roots["parquet"], tmp_path / "parquet")
    path = root / "data" / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert "train-00001-of-00003.parquet is not a Parquet file" in failure(capsys, root)
    path.unlink()
    assert "number 1 is the first; complete the download" in failure(capsys, root)


def test_a_parquet_row_without_an_image_is_rejected_by_name(tmp_path):
    images = [
        {"bytes": forms.jpeg(0), "path": "n01440764_1_n01440764.JPEG"},
        {"bytes": None, "path": "n01440764_2_n01440764.JPEG"},
    ]
    rows = pa.table({"image": images, "label": [0, 0]})
    parquet.write_table(rows, tmp_path / "train-00000-of-00001.parquet")
    assert pack(tmp_path, tmp_path / "pack").manifest.samples == 1
    (reject,) = (tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()
    assert "n01440764/n01440764_2.JPEG" in reject


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"1")], "sample 'a' has .jpg; expected one image and a label"),
        ([("a.cls", b"1")], "sample 'a' has .cls; expected one image and a label"),
        ([("a.jpg", b"1"), ("a.cls", b"one")], "a: label None is none of 0 to 999"),
        ([("a.jpg", b"1"), ("a.jpg", b"1"), ("a.cls", b"1")], "holds 'a.jpg' twice"),
        ([("n01440764_1.jpg", b"1"), ("n01440764_1.cls", b"1")], "label 1 is that of n01443537"),
    ],
    ids=["no-label", "no-image", "no-number", "twice", "other-synset"],
)
def test_a_webdataset_sample_without_image_or_label_is_an_error(members, message, tmp_path, capsys):
    forms.write(tmp_path / "imagenet1k-train-0000.tar", forms.tar(members))
    assert message in failure(capsys, tmp_path)


def test_a_folder_without_any_form_names_them(tmp_path, capsys):
    forms.write(tmp_path / "images" / "1.jpg", b"")
    line = failure(capsys, tmp_path)
    assert "expected one of train/<synset>/<image>, " in line
    assert "ILSVRC2012_img_train.tar, " in line
    assert "found 1: images" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no synsets"),
        ("n01440764\ndog\n", "line 2: expected a synset like n01440764"),
        ("n01440764\nn01440764\n", "line 2: expected a synset"),
        ("n99999999\n", "lacks 1 of the 1 synsets of --classes: n99999999"),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_an_error(text, message, roots, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text(text)
    command = ["pack", "imagenet", "--root", str(roots["tars"]), "--out", str(tmp_path / "pack")]
    assert main([*command, "--classes", str(tmp_path / "classes.txt")]) == 2
    assert message in capsys.readouterr().err
