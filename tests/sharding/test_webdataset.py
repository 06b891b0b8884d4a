"""An existing WebDataset as a data set: which files are image and label, and what is wrong."""

import io
import json
import os
import tarfile

import pytest
import webdataset as wds

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format.opening import open_pack
from sharding.sources.containers.archives import members
from sharding.sources.webdataset import WebDatasetOptions, webdataset

SAMPLES = [(class_, number) for number in range(3) for class_ in ("ant", "bee", "cat")]


def write(folder, image_tree, name="birds-{split}-%06d.tar", maxcount=4):
    """The shards of webdataset's own writer, of two splits."""
    folder.mkdir(exist_ok=True)
    for split, domain in (("train", "day"), ("val", "night")):
        pattern = str(folder / name.format(split=split))
        with wds.ShardWriter(pattern, maxcount=maxcount, verbose=0) as writer:
            for class_, number in SAMPLES:
                image = (image_tree / domain / class_ / f"{number}.jpg").read_bytes()
                label = ("ant", "bee", "cat").index(class_)
                key, described = f"{class_}/{domain}{number}", {"label": label, "name": class_}
                writer.write({"__key__": key, "jpg": image, "cls": label, "json": described})
    return folder


def archive(path, **files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def pack(root, out, *options):
    command = ["pack", "webdataset", "--root", str(root), "--out", str(out), "--workers", "1"]
    return main([*command, *options])


def rejects(pack):
    lines = map(json.loads, (pack / "rejects.jsonl").read_text().splitlines())
    return {line["source"]: line["reason"] for line in lines}


def test_the_pack_holds_the_images_labels_and_splits_of_the_shards(image_tree, tmp_path, capsys):
    root, out = write(tmp_path / "shards", image_tree), tmp_path / "pack"
    assert pack(root, out, "--name", "birds") == 0
    contents = open_pack(out)
    manifest, index = contents.manifest, contents.index
    assert (manifest.dataset, manifest.classes) == ("birds", ("0", "1", "2"))
    assert (manifest.domains, manifest.splits) == (("default",), ("train", "val"))
    assert index.split.tolist() == [0] * 9 + [1] * 9
    assert index.label.tolist() == [0, 1, 2] * 6
    sources = contents.read_sources().to_pylist()
    assert sources[5] == "birds-train-000001.tar/cat/day1.jpg"
    shard = (out / "shard-000000.tar").read_bytes()
    for row, (class_, number) in enumerate(SAMPLES):
        image = shard[index.offset[row] : index.offset[row] + index.size[row]]
        assert image == (image_tree / "day" / class_ / f"{number}.jpg").read_bytes()
    assert main(["verify", str(out), "--decode"]) == 0
    capsys.readouterr()
    assert pack(root, out, "--name", "birds") == 0
    assert "already complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    "pattern",
    [
        "shards/birds-{{train,val}}-{{000000..000002}}.tar",
        "shards/birds-*.tar",
        "shards/birds-val-000001.tar",
    ],
)
def test_shards_are_named_by_patterns(pattern, image_tree, tmp_path):
    write(tmp_path / "shards", image_tree)
    dataset = webdataset(tmp_path / pattern.format(), WebDatasetOptions())
    one = "*" not in pattern and "{" not in pattern
    assert len(list(dataset.samples())) == (4 if one else 18)
    assert dataset.splits == (("val",) if one else ("train", "val"))


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        (WebDatasetOptions(label_key="name"), ("ant", "bee", "cat")),
        (WebDatasetOptions(label_key="label"), ("0", "1", "2")),
        (WebDatasetOptions(label_folder=True), ("ant", "bee", "cat")),
    ],
)
def test_a_class_may_be_in_the_json_or_in_the_folder(options, classes, image_tree, tmp_path):
    dataset = webdataset(write(tmp_path / "shards", image_tree), options)
    assert dataset.classes == classes
    assert [sample.label for sample in dataset.samples()] == [0, 1, 2] * 6


def test_class_names_are_given_by_a_file(image_tree, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("Ameise\nBiene\n")
    options = ["--class-names", str(tmp_path / "names.txt"), "--max-rejects", "0.5"]
    assert pack(write(tmp_path / "shards", image_tree), tmp_path / "pack", *options) == 0
    contents = open_pack(tmp_path / "pack")
    assert contents.manifest.classes == ("Ameise", "Biene")
    assert contents.index.label.tolist() == [0, 1] * 6
    reasons = rejects(tmp_path / "pack")
    assert set(reasons.values()) == {"a label that is not one of the 2 classes"}
    assert "birds-train-000000.tar/cat/day0.jpg" in reasons


def test_a_sample_without_image_or_label_is_rejected_by_name(image_tree, tmp_path, capsys):
    image = (image_tree / "day" / "ant" / "0.jpg").read_bytes()
    archive(
        tmp_path / "a.tar",
        **{"README": b"no sample", "1.jpg": image, "1.cls": b"7\n", "2.cls": b"7", "3.JPG": image},
        **{"4.png": image[:-300], "4.cls": b"7", "5.seg.png": image, "5.cls": b"3"},
        **{"6.cls": b"\xff", "6.jpg": image, "7.jpg": image, "7.cls": b"7" * 3000},
        **{"8.webp": image, "8.jpg": image, "8.cls": b"9"},
        **{"9.jpg": image, "9.cls": b" "},
        **{"10.jpg": image, "10.JPG": image, "10.cls": b"7"},
        **{"11.jpg": image, "11.cls": b"7", "11.CLS": b"9"},
    )
    assert pack(tmp_path / "a.tar", tmp_path / "pack") == 0
    assert "9 files were not packed" in capsys.readouterr().out
    assert open_pack(tmp_path / "pack").read_sources().to_pylist() == ["a.tar/1.jpg", "a.tar/8.jpg"]
    reasons = rejects(tmp_path / "pack")
    assert "truncated" in reasons.pop("a.tar/4.png")
    assert reasons == {
        "a.tar/2": "no image: none of jpg, jpeg, png, webp",
        "a.tar/3.JPG": "no label: it has no .cls",
        "a.tar/5": "no image: none of jpg, jpeg, png, webp",
        "a.tar/6.jpg": "no label: its .cls is not UTF-8",
        "a.tar/7.jpg": "no label: its .cls has more than 2,000 bytes",
        "a.tar/9.jpg": "a name that is empty, too long or has control characters",
        "a.tar/10": "two files of the same kind in the sample",
        "a.tar/11": "two files of the same kind in the sample",
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "its .json has no value 'x'"),
        (b"[" * 100_000, "its .json has no value 'x'"),
        (b"[1]", "its .json has no value 'x'"),
        (b'{"y": 1}', "its .json has no value 'x'"),
        (b'{"x": [1]}', "'x' in .json is neither text nor an integer"),
        (b'{"x": true}', "'x' in .json is neither text nor an integer"),
    ],
)
def test_json_without_a_label_is_a_reason(content, reason, tmp_path):
    path = archive(
        tmp_path / "a.tar",
        **{"1.jpg": b"x", "1.json": content, "2.jpg": b"x"},
        **{"2.json": b'{"x": 1}'},
    )
    dataset = webdataset(path, WebDatasetOptions(label_key="x"))
    with pytest.raises(OSError, match="no label: " + reason.replace("[", r"\[")):
        dataset.read(next(dataset.samples()))


@pytest.mark.parametrize(
    ("make", "pattern", "options", "message"),
    [
        (None, "gone.tar", [], "1 of the 1 files of"),
        (None, "{000..002}.tar", [], "3 of the 3 files of"),
        (None, "{a,b", [], "the braces do not match"),
        (None, "*.tar", [], "holds no files *.tar"),
        (None, "", [], "holds no files *.tar"),
        (lambda path: path.write_bytes(b"x" * 2000), "a.tar", [], "is not a tar archive"),
        (lambda path: archive(path, **{"1.jpg": b"x"}), "{a,a}.tar", [], "means a file twice"),
        (lambda path: archive(path, **{"1.jpg": b"x"}), "a.tar", [], "no label: it has no .cls"),
        (lambda path: archive(path, **{"../1.jpg": b"x"}), "a.tar", [], "leads out of the archive"),
        (None, "a.tar", ["--label-key", "x", "--label-folder"], "exclude each other"),
        (None, "a.tar", ["--class-names", "gone.txt"], "cannot read gone.txt"),
    ],
)  # fmt: skip
def test_what_is_no_webdataset_is_one_line(
    make, pattern, options, message, tmp_path, error_line, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if make:
        make(tmp_path / "a.tar")
    assert pack(tmp_path / pattern, tmp_path / "pack", *options) == 2
    assert message in error_line()
    assert not (tmp_path / "pack").exists()


def test_a_truncated_shard_is_named(image_tree, tmp_path, error_line):
    shard = write(tmp_path / "shards", image_tree) / "birds-val-000000.tar"
    os.truncate(shard, shard.stat().st_size // 2)
    assert pack(tmp_path / "shards", tmp_path / "pack") == 2
    assert f"{shard} is truncated or damaged after" in error_line()


@pytest.mark.parametrize(
    ("names", "message"),
    [("a\n\nb\n", "line 2: '' cannot be"), ("a\nb\na\n", "line 3: 'a' stands")],
)
def test_class_names_have_to_be_different_names(names, message, image_tree, tmp_path):
    (tmp_path / "names.txt").write_text(names)
    with pytest.raises(PackError, match=message):
        webdataset(tmp_path, WebDatasetOptions(class_names=tmp_path / "names.txt"))


def test_files_of_which_some_state_no_split_are_noted(image_tree, tmp_path):
    for name in ("train.tar", "more.tar"):
        archive(tmp_path / name, **{"1.jpg": b"x", "1.cls": b"1"})
    dataset = webdataset(tmp_path, WebDatasetOptions())
    assert dataset.splits == ("all",)
    (note,) = dataset.notes
    assert "1 of 2 files do not state a split in their names, more.tar is the first" in note


def test_a_webdataset_is_packed_in_parts_after_an_interruption_and_repaired(
    image_tree, tmp_path, monkeypatch
):
    root, out = write(tmp_path / "shards", image_tree), tmp_path / "pack"
    undisturbed, options = tmp_path / "undisturbed", ["--shard-size", "20KB"]
    assert pack(root, undisturbed, *options) == 0

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sharding.packing._finish", interrupt)
        assert pack(root, out, *options) == 130
    (out / ".work" / "shard-000001.json").unlink()
    for part in ("1/2", "2/2"):
        assert pack(root, out, *options, "--part", part) == 0
    assert main(["merge", str(out)]) == 0
    files = [path.name for path in undisturbed.iterdir()]
    assert all((out / f).read_bytes() == (undisturbed / f).read_bytes() for f in files)
    (out / "shard-000001.tar").write_bytes(b"")
    command = ["pack", "webdataset", "--root", str(root), "--out", str(out), "--repair"]
    assert main(command) == 0
    assert all((out / f).read_bytes() == (undisturbed / f).read_bytes() for f in files)


def test_a_shard_that_changes_before_it_is_read_is_named(image_tree, tmp_path):
    root = write(tmp_path / "shards", image_tree)
    dataset = webdataset(root, WebDatasetOptions())
    sample = next(dataset.samples())
    os.utime(root / "birds-train-000000.tar")
    with pytest.raises(PackError, match="changed after the tree was listed"):
        dataset.read(sample)


def test_many_shards_are_listed_by_processes_and_the_result_is_the_same(
    image_tree, tmp_path, monkeypatch
):
    root = write(tmp_path / "shards", image_tree)
    alone = list(webdataset(root, WebDatasetOptions()).samples())
    monkeypatch.setattr("sharding.sources.containers.contained._LARGE", 0)
    assert list(webdataset(root, WebDatasetOptions()).samples()) == alone
    (root / "birds-val-000001.tar").write_bytes(b"x" * 1000)
    with pytest.raises(PackError, match="is not a tar archive"):
        webdataset(root, WebDatasetOptions())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_those_that_tarfile_finds(form, tmp_path):
    names = ["a.jpg", "ü/b.jpg", f"{'d' * 90}/{'e' * 90}.jpg", *[f"{n}.cls" for n in range(9)]]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        for number, name in enumerate(names):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = 700 * number, 1.5 if form == tarfile.PAX_FORMAT else 1
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    with tarfile.open(tmp_path / "a.tar") as tar, (tmp_path / "a.tar").open("rb") as file:
        expected = [(entry.name, entry.offset_data, entry.size) for entry in tar]
        assert [tuple(member) for member in members(file, "a.tar")] == expected


def test_other_kinds_of_files_may_be_the_image(tmp_path):
    files = {"1.jpg": b"x", "1.Seg.PNG": b"yy", "1.cls": b"5"}
    options = WebDatasetOptions(image_extensions=(".SEG.png", "jpg"))
    dataset = webdataset(archive(tmp_path / "a.tar", **files), options)
    (sample,) = dataset.samples()
    assert (sample.source, dataset.read(sample)) == ("a.tar/1.Seg.PNG", b"yy")
