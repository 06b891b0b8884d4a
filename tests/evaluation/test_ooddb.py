"""OODDB's protocols, on imitations of its lists and of the data sets."""

import csv
import json
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from ooddb_imitation import NUMBER, ORDERS, classes_of, write, write_lists
from PIL import Image
from published_trees import MAKERS, WithoutImages

import evaluate
from evaluation.ooddb import ooddb_protocol
from runtime.errors import ConfigError, PackError
from sharding.__main__ import main as sharding
from sharding.format.index import Index
from sharding.sources.published import DTD_CLASSES
from sharding.sources.registry import SOURCES

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


class Names(WithoutImages):
    """A pack of which only the index's names are there."""

    def sources(self, rows):
        return [self.all_sources[row] for row in rows]


def names_of(dataset):
    """The pack of a data set, without images."""
    samples = list(dataset.samples())
    columns = {field: np.zeros(len(samples), np.int64) for field in Index.__dataclass_fields__}
    columns["label"] = np.array([sample.label for sample in samples])
    return Names(
        path="pack",
        manifest=SimpleNamespace(classes=dataset.classes, rejects=0),
        index=Index(**columns),
        all_sources=[sample.source for sample in samples],
    )


def listed_images(dataset, pattern):
    """What a list has of each image: the number, or for another ``pattern`` what it finds."""
    images = defaultdict(list)
    for sample in dataset.samples():
        (found,) = pattern.search(sample.source).groups()
        images[dataset.classes[sample.label]].append(int(found) if found.isdigit() else found)
    return images


@pytest.mark.parametrize(
    ("name", "folder", "known", "most"),
    [("patternnet", "patternnet", 19, 4), ("dtd", "dtd", 23, 4)],
)
def test_numbers_of_images_are_found_whatever_their_digits(name, folder, known, most, tmp_path):
    MAKERS[name](tmp_path / "tree", most=most)
    dataset = SOURCES[name].make(tmp_path / "tree")
    if name == "dtd":  # the imitation's files lack the class in front of the number
        named = [rename(sample) for sample in dataset.samples()]
        dataset = SimpleNamespace(classes=dataset.classes, samples=lambda: named)
    images = listed_images(dataset, NUMBER)
    write_lists(tmp_path / "lists" / folder, dataset.classes, known, images)
    protocol = ooddb_protocol(f"ooddb:{name}", tmp_path / "lists")
    assert [target.setting for target in protocol.targets] == [name] * ORDERS
    pack = names_of(dataset)
    for order, target in enumerate(protocol.targets):
        rows = protocol.rows(pack, target)
        labels = classes_of(order, dataset.classes)
        assert rows.known == tuple(labels[:known])
        half = len(images[labels[0]]) // 2
        assert len(rows.reference) == known * half
        assert len(rows.test) == (len(labels) + 1) * half
        for row, class_ in zip(rows.reference, rows.reference_class):
            assert dataset.classes[pack.index.label[row]] == labels[class_]


def rename(sample):
    class_, number = sample.source.split("/")
    return SimpleNamespace(source=f"{class_}/{class_}_{number[1:]}", label=sample.label)


def test_an_image_under_a_known_and_an_unknown_label_counts_as_both(tmp_path):
    MAKERS["patternnet"](tmp_path / "tree", most=4)
    dataset = SOURCES["patternnet"].make(tmp_path / "tree")
    images = listed_images(dataset, NUMBER)
    write_lists(tmp_path / "patternnet", dataset.classes, 19, images)
    protocol = ooddb_protocol("ooddb:patternnet", tmp_path)
    rows = protocol.rows(names_of(dataset), protocol.targets[0])
    row, count = np.unique(rows.test, return_counts=True)
    twice = row[count == 2]
    assert len(twice) == 2
    for number in twice:
        assert sorted(rows.test_class[rows.test == number]) == [-1, 0]


def test_cars_are_found_in_the_folder_of_their_split_with_names_of_the_lists(tmp_path):
    MAKERS["cars"](tmp_path / "tree", most=1)
    (tmp_path / "tree" / "devkit" / "cars_meta.mat").unlink()
    pack = names_of(SOURCES["cars"].make(tmp_path / "tree"))
    for split, count in (("train", 98), ("test", 196)):
        lists = {f"{n};Maker_{n}_2012": [n + 1] for n in range(count)}
        write(tmp_path / "stanford_cars" / f"{split}_o0.json", lists)
    protocol = ooddb_protocol("ooddb:cars", tmp_path)
    rows = protocol.rows(pack, protocol.targets[0])
    assert rows.known == tuple(f"Maker_{n}_2012" for n in range(98))
    assert set(rows.test_name) == {f"Maker_{n}_2012" for n in range(196)}
    assert {source.split("/")[0] for source in pack.sources(rows.test)} == {"cars_test"}
    assert {source.split("/")[0] for source in pack.sources(rows.reference)} == {"cars_train"}


def test_images_of_sun397_are_found_by_name_in_classes_within_places(tmp_path):
    MAKERS["sun397"](tmp_path / "tree", most=2)
    dataset = SOURCES["sun397"].make(tmp_path / "tree")
    for split, count, image in (("train", 198, "ccccccc1"), ("test", 397, "ccccccc2")):
        lists = {f"{n};{class_}": [image] for n, class_ in enumerate(dataset.classes[:count])}
        write(tmp_path / "sun" / f"{split}_o0.json", lists)
    protocol = ooddb_protocol("ooddb:sun397", tmp_path)
    rows = protocol.rows(names_of(dataset), protocol.targets[0])
    assert rows.known == dataset.classes[:198]
    assert len(rows.test) == 397


@pytest.fixture(scope="module")
def domainnet(tmp_path_factory):
    """Names of images as they are published, and lists of them: (pack, folder of the lists)."""
    folder = tmp_path_factory.mktemp("domainnet")
    classes = [f"thing_{number}" for number in range(100)]

    def source(domain, number, image):
        if domain == "quickdraw":
            return f"quickdraw/{classes[number]}/{4503600000000000 + image}.png"
        return f"{domain}/{classes[number]}/{domain}_{number:03d}_{image:06d}.jpg"

    def lists(domains, count, image):
        return {
            f"{n};{classes[n]};quickdraw"
            if d == "quickdraw"
            else f"{n};{classes[n]},{n:03d};{d}": [
                4503600000000000 + image if d == "quickdraw" else image
            ]
            for d in domains
            for n in range(count)
        }

    for order in range(ORDERS):
        for domain in DOMAINS:
            others = [other for other in DOMAINS if other != domain]
            for name, content in (
                (f"{domain}_train", lists([domain], 50, 1)),
                (f"no_{domain}_train", lists(others, 50, 1)),
                (f"{domain}_test", lists([domain], 100, 12)),
            ):
                write(folder / "domainnet" / f"{name}_o{order}.json", content)
    samples = [
        SimpleNamespace(source=source(domain, number, image), label=number)
        for domain in DOMAINS
        for number in range(100)
        for image in (1, 12)
    ]
    dataset = SimpleNamespace(classes=tuple(classes), samples=lambda: samples)
    return names_of(dataset), folder


def test_domainnet_has_settings_within_a_domain_from_one_and_from_all_others(domainnet):
    pack, lists = domainnet
    expected = {"intra-domain": 6, "multi-source": 6, "single-source": 30}
    for kind, count in expected.items():
        protocol = ooddb_protocol(f"ooddb:domainnet/{kind}", lists)
        assert len({target.setting for target in protocol.targets}) == count
    every = ooddb_protocol("ooddb:domainnet", lists)
    assert len(every.targets) == 42 * ORDERS
    assert len({target.name for target in every.targets}) == 42 * ORDERS
    for setting, references, tests in (
        ("real", {"real"}, {"real"}),
        ("no_quickdraw-quickdraw", set(DOMAINS) - {"quickdraw"}, {"quickdraw"}),
        ("quickdraw-sketch", {"quickdraw"}, {"sketch"}),
    ):
        protocol = ooddb_protocol(f"ooddb:domainnet/{setting}", lists)
        assert [target.name for target in protocol.targets] == [
            f"{setting}, order {order}" for order in range(ORDERS)
        ]
        rows = protocol.rows(pack, protocol.targets[0])
        assert len(rows.reference) == 50 * len(references)
        assert rows.known[3] == "thing_3"
        assert {source.split("/")[0] for source in pack.sources(rows.reference)} == references
        assert {source.split("/")[0] for source in pack.sources(rows.test)} == tests


def test_a_missing_image_is_named(domainnet):
    pack, lists = domainnet
    partial = Names(**{**vars(pack), "all_sources": [*pack.all_sources[:-1], "else"]})
    protocol = ooddb_protocol("ooddb:domainnet/sketch", lists)
    message = r"1 of 100 listed .*, the first is sketch/thing_99/sketch_099_12\.jpg \(key 99;thing"
    with pytest.raises(PackError, match=message):
        protocol.rows(partial, protocol.targets[0])


@pytest.mark.parametrize(
    "name", ["ooddb:", "ooddb:stl", "ooddb:dtd/0", "ooddb:domainnet/", "ooddb:domainnet/real-real"]
)
def test_a_protocol_that_does_not_exist_is_told_which_do(name, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no protocol .* ooddb: and one of domainnet"):
        ooddb_protocol(name, tmp_path)


def test_the_folder_of_the_lists_has_to_be_given():
    with pytest.raises(ConfigError, match="ooddb:dtd needs OODDB's lists; add --lists"):
        ooddb_protocol("ooddb:dtd", None)


@pytest.fixture(scope="module")
def dtd(tmp_path_factory):
    """A tree of four images a class, its pack, and its lists: (pack, folder of the lists)."""
    folder = tmp_path_factory.mktemp("dtd")
    images = {class_: [9, 10, 100, 101] for class_ in DTD_CLASSES}
    for number, class_ in enumerate(DTD_CLASSES):
        for image in images[class_]:
            path = folder / "images" / class_ / f"{class_}_{image:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (5 * number, image, 255 - 5 * number)).save(path)
    write_lists(folder / "splits" / "dtd", DTD_CLASSES, 23, images)
    command = ["pack", "dtd", "--root", str(folder), "--out", str(folder / "pack")]
    assert sharding(command) == 0
    return folder / "pack", folder / "splits"


def test_orders_are_evaluated_and_summed_up_as_mean_and_standard_deviation(
    dtd, run_folder, tmp_path, capsys
):
    pack, lists = dtd
    command = ["--protocol", "ooddb:dtd", "--lists", lists, "--pack", pack, "--no-cache"]
    command += ["--checkpoint", run_folder, "--out", tmp_path / "out", "--image-size", "32"]
    command += ["--evaluators", "cosine", "--resamples", "2", "--device", "cpu"]
    assert evaluate.main([str(word) for word in command]) == 0
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    assert [target["setting"] for target in benchmark["targets"]] == ["dtd"] * ORDERS
    assert benchmark["targets"][1]["known"] == classes_of(1, DTD_CLASSES)[:23]
    assert benchmark["targets"][0]["counts"]["tests"] == 96
    found = [target["evaluators"]["cosine"]["auroc"] for target in benchmark["targets"]]
    (setting,) = benchmark["settings"]
    mean, std = (setting[what]["cosine"]["auroc"] for what in ("mean", "std"))
    assert setting["name"] == "dtd"
    assert mean == pytest.approx(np.mean(found))
    assert std == pytest.approx(np.sqrt(np.sum((np.array(found) - mean) ** 2) / 2))
    assert benchmark["mean"]["cosine"]["auroc"] == pytest.approx(mean)

    shown = capsys.readouterr().out
    assert "dtd: mean" in shown
    assert "dtd: std" in shown
    assert "order 0" not in shown
    markdown = (tmp_path / "out" / "results.md").read_text()
    for name, value in (("dtd, order 2", found[2]), ("dtd: mean", mean), ("dtd: std", std)):
        assert f"| {name} | cosine | {value:.4f} |" in markdown
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_target = {(row["setting"], row["target"]): row["auroc"] for row in rows}
    assert float(by_target["dtd", "std"]) == pytest.approx(std)
    assert float(by_target["dtd", "dtd, order 0"]) == pytest.approx(found[0])
    assert "dtd: std" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ooddb:stl"], "there is no protocol ooddb:stl"),
        (["ooddb:dtd"], "ooddb:dtd needs OODDB's lists"),
        (["ooddb:dtd", "--lists", "nowhere"], "cannot read the list nowhere/dtd/train_o0.json"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words, message, dtd, run_folder, tmp_path, capsys):
    options = ["--pack", str(dtd[0]), "--checkpoint", str(run_folder), "--no-cache"]
    options += ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert evaluate.main(["--protocol", *words, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()
