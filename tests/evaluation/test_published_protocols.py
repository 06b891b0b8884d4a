"""The benchmarks: trees with the published numbers of images give the published protocols."""

from pathlib import Path

import numpy as np
import pytest
from published_trees import MAKERS, PUBLISHED, WithoutImages, images

from evaluation.protocol import Protocol
from pipelines.pack import Pack
from runtime.errors import PackError
from sharding.format.index import Index
from sharding.format.manifest import Manifest
from sharding.sources.imagenet.forms import imagenet
from sharding.sources.published import domainnet
from sharding.sources.registry import SOURCES

BENCHMARKS = Path(__file__).parents[2] / "configs" / "benchmarks"


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """By data set, a pack of its tree that has names and an index but no images."""
    made = {}
    for name in ("pacs", "officehome", "dtd", "domainnet"):
        root = tmp_path_factory.mktemp(name)
        MAKERS[name](root)
        dataset = SOURCES[name].make(root)
        samples = list(dataset.samples())
        columns = {field: np.zeros(len(samples), np.int64) for field in Index.__dataclass_fields__}
        for column in ("label", "domain", "split"):
            columns[column] = np.array([getattr(sample, column) for sample in samples])
        manifest = Manifest(
            name, dataset.classes, dataset.domains, dataset.splits, {}, len(samples), 0, 0, ()
        )
        made[name] = WithoutImages(path=root, manifest=manifest, index=Index(**columns))
    return made


@pytest.mark.parametrize(
    "expected", PUBLISHED["protocols"], ids=lambda entry: f"{entry['protocol']}-{entry['target']}"
)
def test_a_protocol_selects_the_published_numbers_of_images(expected, packs):
    protocol = Protocol.load(BENCHMARKS / f"{expected['protocol']}.yaml")
    pack: Pack = packs[protocol.dataset]
    target = protocol.target(expected["target"])
    reference, test = (
        np.concatenate([np.empty(0, np.int64), *(part.images.rows(pack) for part in parts)])
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
    selection = protocol.target("Clipart").reference[0].images
    assert selection.leading is not None
    assert set(np.flatnonzero(~selection.leading.mask(15)) + 1) == {6, 7}


def test_a_pack_that_lacks_images_does_not_answer_a_count(packs):
    pack = packs["dtd"]
    short = WithoutImages(
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
    dataset = imagenet(tmp_path)
    assert dataset.shuffled
    assert dataset.classes == tuple(f"n{number * 7:08d}" for number in range(1000))
    assert [sample.label for sample in dataset.samples()] == list(range(1000))


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "cars"])
def test_a_partial_tree_is_told_what_was_expected_and_found(name, tmp_path):
    images(tmp_path / "photo" / "dog", 2)
    with pytest.raises(PackError, match=r"expected .*found 1: photo"):
        SOURCES[name].make(tmp_path)


def test_a_missing_domainnet_list_is_named(tmp_path):
    images(tmp_path / "real" / "ant", 2)
    with pytest.raises(PackError, match=r"real_train\.txt"):
        domainnet(tmp_path)
