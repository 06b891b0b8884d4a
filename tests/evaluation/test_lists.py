"""Protocols whose sets are lists of source paths with labels."""

import json
import os

import pytest
import yaml
from PIL import Image

import evaluate
from evaluation.lists import ImageList
from evaluation.protocol import Protocol
from pipelines.pack import Pack
from runtime.errors import ConfigError, PackError
from sharding.__main__ import main


@pytest.fixture
def pack(pack_path):
    return Pack(pack_path)


def lines(domain, labels, numbers=range(6), before=""):
    """A list of images of the shared tree, by class and label."""
    return "".join(
        f"{before}{domain}/{class_}/{number}.jpg {label}\n"
        for class_, label in labels.items()
        for number in numbers
    )


KNOWN, ALL = {"dog": 0, "ant": 1}, {"dog": 0, "ant": 1, "bee": 2, "cat": 7}


@pytest.fixture
def loaded(tmp_path):
    """A protocol with the lists `reference.txt` and `test.txt`, which hold these texts."""

    def load(reference=None, test=None, lists=None, root=None, **keys):
        (tmp_path / "reference.txt").write_text(reference or lines("day", KNOWN))
        (tmp_path / "test.txt").write_text(test or lines("night", ALL))
        root = {"root": root} if root else {}
        sets = {name: [{"list": f"{name}.txt", **root}] for name in ("reference", "test")}
        content = {"name": "listed", "dataset": "imagefolder", "known": 2, **keys}
        file = tmp_path / "protocol.yaml"
        file.write_text(yaml.safe_dump({**content, "targets": {"night": sets}}))
        return Protocol.load(file, lists)

    return load


def test_labels_decide_what_is_known_and_the_pack_gives_names(loaded, pack):
    protocol = loaded()
    rows = protocol.rows(pack, protocol.targets[0])
    assert rows.known == ("dog", "ant")
    assert pack.sources(rows.reference) == sorted(pack.sources(rows.reference))
    for row, class_ in zip(rows.reference, rows.reference_class):
        assert pack.sources(row[None])[0].startswith(f"day/{rows.known[class_]}/")
    assert len(rows.test) == 24
    for name, class_ in zip(rows.test_name, rows.test_class):
        assert class_ == KNOWN.get(name, -1)


def test_lists_are_next_to_the_protocol_or_in_the_folder_of_lists(loaded, pack, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    protocol = loaded(lists=elsewhere)
    with pytest.raises(ConfigError, match=r"elsewhere/reference\.txt: No such file.*--lists"):
        protocol.rows(pack, protocol.targets[0])
    for name in ("reference.txt", "test.txt"):
        (tmp_path / name).rename(elsewhere / name)
    assert len(protocol.rows(pack, protocol.targets[0]).test) == 24


def test_a_known_class_with_the_label_of_another_is_refused(loaded, pack):
    protocol = loaded(known=["ant", "dog"])
    with pytest.raises(PackError, match="class ant has label 1, but 0 by its place in `known`"):
        protocol.rows(pack, protocol.targets[0])


def test_names_of_known_classes_may_be_given_and_mixed_with_selections(loaded, pack, tmp_path):
    loaded()
    content = yaml.safe_load((tmp_path / "protocol.yaml").read_text())
    content["targets"]["night"]["test"].append({"domains": ["day"], "classes": ["eel"]})
    (tmp_path / "protocol.yaml").write_text(yaml.safe_dump({**content, "known": ["dog", "ant"]}))
    protocol = Protocol.load(tmp_path / "protocol.yaml")
    rows = protocol.rows(pack, protocol.targets[0])
    assert rows.known == ("dog", "ant")
    assert set(rows.test_name[rows.test_class < 0]) == {"bee", "cat", "eel"}
    (tmp_path / "protocol.yaml").write_text(yaml.safe_dump({**content, "known": 2}))
    with pytest.raises(
        ConfigError, match="test: item 2: known is a number, so this must be a list"
    ):
        Protocol.load(tmp_path / "protocol.yaml")


def test_a_label_of_several_classes_has_the_names_of_all(loaded, pack):
    reference = lines("day", {"dog": 0, "bee": 1, "ant": 1})
    rows = (protocol := loaded(reference)).rows(pack, protocol.targets[0])
    assert rows.known == ("dog", "ant + bee")


def test_labels_of_one_class_are_told_apart(loaded, pack):
    reference = lines("day", {"dog": 0}, range(3)) + lines("day", {"dog": 1}, range(3, 6))
    rows = (protocol := loaded(reference)).rows(pack, protocol.targets[0])
    assert rows.known == ("0 dog", "1 dog")


@pytest.mark.parametrize(
    "text", [lines("day", KNOWN).replace("\n", "\r\n"), "\ufeff" + lines("day", KNOWN)]
)
def test_lists_of_other_systems_are_read(loaded, pack, text):
    protocol = loaded(text)
    assert len(protocol.rows(pack, protocol.targets[0]).reference) == 12


def test_a_root_above_the_packed_tree_is_suggested_and_taken_off(loaded, pack):
    texts = (lines("day", KNOWN, before="data/a/"), lines("night", ALL, before="data/a/"))
    protocol = loaded(*texts)
    with pytest.raises(PackError, match=r"12 of 12 listed images .* add `root: data/a`"):
        protocol.rows(pack, protocol.targets[0])
    protocol = loaded(*texts, root="data/a/")
    assert len(protocol.rows(pack, protocol.targets[0]).test) == 24
    protocol = loaded(lines("day", KNOWN), texts[1], root="data/a")
    with pytest.raises(ConfigError, match=r"line 1: day/dog/0\.jpg is not below the root data/a"):
        protocol.rows(pack, protocol.targets[0])


def test_images_that_the_pack_lacks_are_counted_and_the_first_is_named(loaded, pack):
    protocol = loaded(test=lines("night", ALL) + "night/wolf/1.jpg 3\nnight/wolf/2.jpg 3\n")
    message = r"test\.txt: 2 of 26 listed .*, the first is night/wolf/1\.jpg \(line 25\); pack the"
    with pytest.raises(PackError, match=message):
        protocol.rows(pack, protocol.targets[0])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (lines("day", {"dog": 0}), "no reference image of class with label 1"),
        (lines("day", {"dog": 0, "ant": 1, "bee": 2}), "holds a class that is not known"),
        (lines("day", KNOWN) + lines("night", KNOWN), "12 image.s. are both reference and test"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(loaded, pack, reference, message):
    protocol = loaded(reference)
    with pytest.raises(PackError, match=message):
        protocol.rows(pack, protocol.targets[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it lists no images"),
        (b"a.jpg 0\n\nb.jpg 0\n", "line 2: expected `path label`, .* found "),
        (b"a.jpg\n", "line 1: expected `path label`, the label a number from 0, found a.jpg"),
        (b"a.jpg -1\n", "line 1: expected .* found a.jpg -1"),
        (b"a.jpg 0.5\n", "line 1: expected .* found a.jpg 0.5"),
        ("a.jpg ³\n".encode(), "line 1: expected"),
        (b"a.jpg 9999999999\n", "line 1: expected"),
        (b"a" * 5000 + b" 0\n", "line 1: expected"),
        (b"a.jpg 0\n\xff.jpg 0\n", "line 2: it is not UTF-8"),
        (b"a.jpg 0\nb.jpg 0\na.jpg 0\n", "line 3: a.jpg is already in line 1"),
        (b"a.jpg 0\na.jpg 1\n", "line 2: a.jpg is already in line 1"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_malformed_text_list_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        ImageList(tmp_path / "list.txt").read()
    assert str(caught.value).startswith(str(tmp_path / "list.txt"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is not JSON"),
        ("{}", "it lists no images"),
        ("[1]", "it is not a JSON object"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"0;a": NaN}', "NaN is not a number"),
        ('{"0;a": ["x"], "0;a": ["y"]}', "an object has a key twice"),
        ('{"0;a": {"x": 1}}', "key 0;a: expected a list of images"),
        ('{"0;a": []}', "key 0;a: expected a list of images"),
        ('{"0;a": [1]}', "key 0;a: expected names of images, found 1"),
        ('{"0;a": ["x", null]}', "key 0;a: expected names of images, found None"),
        ('{"0": ["x"]}', "key 0: expected `<label>;<class>`"),
        ('{"0;": ["x"]}', "key 0;: expected `<label>;<class>`"),
        ('{"-1;a": ["x"]}', "key -1;a: expected `<label>;<class>`, the label a number from 0"),
        ('{"0;a\\ud800": ["x"]}', "key '0;a.*: expected `<label>;<class>`"),
        ('{"x;a": ["x"]}', "key x;a: expected `<label>;<class>`"),
        ('{"0;a,;real": ["x"]}', "key 0;a,;real: expected"),
        ('{"0;a;real;b": ["x"]}', "key 0;a;real;b: expected"),
        ('{"0;a": ["x", "x"]}', "key 0;a: x is already in key 0;a"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_malformed_json_list_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        ImageList(tmp_path / "list.json").read()
    assert str(caught.value).startswith(str(tmp_path / "list.json"))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_too_large_or_not_a_file_is_not_read(tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 25)
    os.mkfifo(tmp_path / "pipe.txt")
    for name, message in (("large.json", "33,554,432 bytes"), ("pipe.txt", "not a regular file")):
        with pytest.raises(ConfigError, match=message):
            ImageList(tmp_path / name).read()


def test_a_json_list_gives_paths_labels_and_class_names(tmp_path, pack):
    content = {"0;hound": ["day/dog/0.jpg", "day/dog/1.jpg"], "4;insect": ["day/ant/0.jpg"]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    entries = ImageList(tmp_path / "list.json").read()
    assert [(entry.path, entry.label, entry.name) for entry in entries] == [
        ("day/dog/0.jpg", 0, "hound"),
        ("day/dog/1.jpg", 0, "hound"),
        ("day/ant/0.jpg", 4, "insect"),
    ]


@pytest.fixture(scope="module")
def damaged_pack(tmp_path_factory):
    """Classes `big dog` and ant of four images each, of which one dog is not an image."""
    root = tmp_path_factory.mktemp("damaged")
    for class_ in ("ant", "big dog"):
        for number in range(4):
            path = root / "tree" / class_ / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9)).save(path)
    (root / "tree" / "big dog" / "3.jpg").write_text("not an image")
    command = ["pack", "imagefolder", "--root", str(root / "tree"), "--out", str(root / "pack")]
    assert main(command) == 0
    return Pack(root / "pack")


def test_a_listed_image_that_was_rejected_is_told_apart_and_can_be_left_out(loaded, damaged_pack):
    texts = ("big_dog/0.jpg 0\nant/0.jpg 1\n", "big_dog/1.jpg 0\nant/1.jpg 2\nbig_dog/3.jpg 2\n")
    protocol = loaded(*texts)
    message = r"1 listed images were rejected .* first is big_dog/3\.jpg \(line 3\): .*--leave-out"
    with pytest.raises(PackError, match=message):
        protocol.rows(damaged_pack, protocol.targets[0])
    protocol = loaded(*texts, leave_out_rejected=True)
    rows = protocol.rows(damaged_pack, protocol.targets[0])
    assert (rows.left_out, len(rows.test), rows.known) == (1, 2, ("big dog", "ant"))
    protocol = loaded(texts[0], texts[1] + "ant/9.jpg 3\n", leave_out_rejected=True)
    with pytest.raises(PackError, match=r"1 of 4 listed images are not in .* ant/9\.jpg"):
        protocol.rows(damaged_pack, protocol.targets[0])


def test_a_path_that_could_be_two_images_is_refused(loaded, tmp_path):
    for folder in ("b c", "b_c", "a"):
        for number in range(2):
            path = tmp_path / "tree" / folder / f"x y {number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9)).save(path)
    out = tmp_path / "pack"
    assert main(["pack", "imagefolder", "--root", str(tmp_path / "tree"), "--out", str(out)]) == 0
    reference, test = "b c/x y 0.jpg 0\na/x y 0.jpg 1\n", "b_c/x y 1.jpg 0\na/x_y_1.jpg 2\n"
    protocol = loaded(reference, test)
    assert len(protocol.rows(Pack(out), protocol.targets[0]).test) == 2
    protocol = loaded(reference, test + "b_c/x_y_0.jpg 0\n")
    with pytest.raises(PackError, match=r"two images could be b_c/x_y_0\.jpg \(line 3\)"):
        protocol.rows(Pack(out), protocol.targets[0])


def test_an_evaluation_says_how_many_listed_images_it_leaves_out(
    loaded, damaged_pack, run_folder, tmp_path, capsys
):
    reference = "".join(
        f"{name}/{n}.jpg {label}\n" for label, name in enumerate(("big dog", "ant")) for n in (0, 1)
    )
    loaded(reference, "big dog/2.jpg 0\nant/2.jpg 2\nbig dog/3.jpg 2\n")
    command = ["--protocol", tmp_path / "protocol.yaml", "--pack", damaged_pack.path, "--no-cache"]
    command += ["--checkpoint", run_folder, "--out", tmp_path / "out", "--device", "cpu"]
    words = [str(word) for word in command]
    assert evaluate.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert evaluate.main([*words, "--leave-out-rejected"]) == 0
    assert "night: 1 listed images, rejected by packing, are left out" in capsys.readouterr().out
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    assert benchmark["targets"][0]["left_out"] == 1
    assert "1 listed images, rejected" in (tmp_path / "out" / "report.html").read_text()
