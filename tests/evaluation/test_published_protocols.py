"""The benchmarks: trees with the published numbers of images give the published protocols."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.protocol import Protocol
from pipelines.pack import Pack
from runtime.errors import PackError
from sharding.format.index import Index
from sharding.format.manifest import Manifest
from sharding.sources import published

PUBLISHED = json.loads((Path(__file__).parent / "published_counts.json").read_text())
BENCHMARKS = Path(__file__).parents[2] / "configs" / "benchmarks"


def images(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}.jpg" for number in range(1, count + 1)]
    for name in names:
        (folder / name).touch()
    return names


def make_pacs(root):
    for domain, classes in PUBLISHED["images"]["pacs"].items():
        for class_, count in classes.items():
            images(root / "PACS" / "kfold" / domain / class_, count)


def make_officehome(root):
    """No protocol uses all real-world classes; those whose numbers are not published get one."""
    counts = PUBLISHED["images"]["officehome"]
    for domain, classes in counts.items():
        for class_ in counts["Art"]:
            images(root / domain.replace("_", " ") / class_, classes.get(class_, 1))


def make_dtd(root):
    for class_ in published.DTD_CLASSES:
        images(root / "dtd" / "images" / class_, 120)


def make_domainnet(root):
    """With labels against the alphabet, so that they can only come from the lists."""
    counts = PUBLISHED["images"]["domainnet"]
    names = {name for splits in counts.values() for split in splits.values() for name in split}
    label = {name: number for number, name in enumerate(sorted(names, reverse=True))}
    for domain, splits in counts.items():
        lines = {"train": [], "test": []}
        for class_ in sorted(names):
            train, test = (splits[split].get(class_, 0) for split in ("train", "test"))
            for number, name in enumerate(images(root / domain / class_, train + test)):
                split = "train" if number < train else "test"
                lines[split].append(f"{domain}/{class_}/{name} {label[class_]}\n")
        for split, of_split in lines.items():
            (root / f"{domain}_{split}.txt").write_text("".join(of_split))


MAKERS = {
    "pacs": make_pacs,
    "officehome": make_officehome,
    "dtd": make_dtd,
    "domainnet": make_domainnet,
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """By data set a pack of its tree, of which only the index's names are there."""
    made = {}
    for name, make in MAKERS.items():
        root = tmp_path_factory.mktemp(name)
        make(root)
        dataset = published.DATASETS[name](root)
        samples = list(dataset.samples())
        columns = {field: np.zeros(len(samples), np.int64) for field in Index.__dataclass_fields__}
        for column in ("label", "domain", "split"):
            columns[column] = np.array([getattr(sample, column) for sample in samples])
        manifest = Manifest(
            name, dataset.classes, dataset.domains, dataset.splits, {}, len(samples), 0, 0, ()
        )
        made[name] = SimpleNamespace(path=root, manifest=manifest, index=Index(**columns))
    return made


@pytest.mark.parametrize(
    "expected", PUBLISHED["protocols"], ids=lambda entry: f"{entry['protocol']}-{entry['target']}"
)
def test_a_protocol_selects_the_published_numbers_of_images(expected, packs):
    protocol = Protocol.load(BENCHMARKS / f"{expected['protocol']}.yaml")
    pack: Pack = packs[protocol.dataset]
    target = protocol.target(expected["target"])
    reference, test = (
        np.concatenate([np.empty(0, np.int64), *(part.rows(pack) for part in parts)])
        for parts in (target.reference, target.test)
    )
    known = np.isin(np.array(pack.manifest.classes)[pack.index.label], protocol.known)
    assert len(reference) == expected["reference"]
    assert known[reference].all()
    assert int(known[test].sum()) == expected["known"]
    assert int((~known[test]).sum()) == expected["unknown"]
    assert len(np.intersect1d(reference, test)) == 0
    if len(reference):
        rows = protocol.rows(pack, target)
        assert np.array_equal(rows.reference, np.sort(reference))
        assert (rows.test_class >= 0).sum() == expected["known"]


def test_every_benchmark_has_its_protocol():
    tested = {entry["protocol"] for entry in PUBLISHED["protocols"]}
    assert {path.stem for path in BENCHMARKS.glob("*.yaml")} == tested | {"demo"}
    for name in tested:
        protocol = Protocol.load(BENCHMARKS / f"{name}.yaml")
        targets = {e["target"] for e in PUBLISHED["protocols"] if e["protocol"] == name}
        assert {target.name for target in protocol.targets} == targets


def test_office_home_takes_the_published_images_for_training(packs):
    """Of 15 images all but the last two of the order without the numbers above 15."""
    protocol = Protocol.load(BENCHMARKS / "officehome_dg.yaml")
    selection = protocol.target("Clipart").reference[0]
    assert selection.leading is not None
    assert set(np.flatnonzero(~selection.leading.mask(15)) + 1) == {6, 7}


def test_a_pack_that_lacks_images_does_not_answer_a_count(packs):
    pack = packs["dtd"]
    short = SimpleNamespace(
        path=pack.path,
        manifest=Manifest(**{**pack.manifest.__dict__, "rejects": 1}),
        index=pack.index,
    )
    protocol = Protocol.load(BENCHMARKS / "dtd.yaml")
    with pytest.raises(PackError, match="fix the tree"):
        protocol.rows(short, protocol.targets[0])


def test_domainnets_labels_and_splits_come_from_its_lists(packs):
    manifest = packs["domainnet"].manifest
    assert list(manifest.classes) == sorted(manifest.classes, reverse=True)
    assert manifest.splits == ("train", "test")


def test_office_homes_folder_with_a_space_is_the_domain_with_an_underscore(packs):
    assert packs["officehome"].manifest.domains == ("Art", "Clipart", "Product", "Real_World")


def test_imagenet_is_shuffled_and_labelled_by_sorted_synset(tmp_path):
    train = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "train"
    for number in reversed(range(1000)):
        images(train / f"n{number * 7:08d}", 1)
    dataset = published.imagenet(tmp_path)
    assert dataset.shuffled
    assert dataset.classes == tuple(f"n{number * 7:08d}" for number in range(1000))
    assert [sample.label for sample in dataset.samples()] == list(range(1000))


@pytest.mark.parametrize("name", ["imagenet", "pacs", "officehome", "dtd", "domainnet"])
def test_a_partial_tree_is_told_what_was_expected_and_found(name, tmp_path):
    images(tmp_path / "photo" / "dog", 2)
    with pytest.raises(PackError, match=r"expected .*found 1: photo"):
        published.DATASETS[name](tmp_path)


def test_a_missing_domainnet_list_is_named(tmp_path):
    images(tmp_path / "real" / "ant", 2)
    with pytest.raises(PackError, match=r"real_train\.txt"):
        published.domainnet(tmp_path)
