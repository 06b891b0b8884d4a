"""Several packs read as one give each pack's samples, under names that tell them apart."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from pipelines.packs import JoinedPacks, joined
from pipelines.pairs import PairData
from pipelines.selection import Selection
from runtime.errors import ConfigError, PackError
from tests.pipelines.loading import decoding, pair_loader, taken


@pytest.fixture
def members(pack_path, insects_path):
    return [Pack(pack_path), Pack(insects_path)]


def test_one_pack_stays_as_it_is_and_several_are_joined(members):
    assert joined(members[:1]) is members[0]
    assert joined(members).members == tuple(members)


def test_samples_are_those_of_the_packs_one_after_the_other(members):
    both = JoinedPacks(members)
    first, second = members
    assert both.first_rows == (0, len(first.index))
    assert len(both.index) == len(first.index) + len(second.index) == both.manifest.samples
    rows = np.random.default_rng(0).permutation(len(both.index))
    both.prefetch(rows)
    for row, image, key, source in zip(
        rows.tolist(), both.read(rows), both.keys(rows), both.sources(rows)
    ):
        member = int(row >= len(first.index))
        pack, own = members[member], np.array([row - both.first_rows[member]])
        assert both.locate(row) == (pack, own[0])
        assert image.tobytes() == pack.read(own)[0].tobytes()
        assert source == pack.sources(own)[0]
        assert key == f"{pack.manifest.dataset}/{pack.keys(own)[0]}"
        for column in ("offset", "size", "width", "height", "crc32"):
            assert getattr(both.index, column)[row] == getattr(pack.index, column)[own[0]]
        for column, names in (("domain", "domains"), ("split", "splits")):
            number, own_number = (getattr(p.index, column) for p in (both, pack))
            assert (
                getattr(both.manifest, names)[number[row]]
                == getattr(pack.manifest, names)[own_number[own[0]]]
            )
    assert len(set(both.keys(rows))) == len(rows)


@pytest.mark.parametrize("merge", [False, True])
def test_classes_of_equal_names_are_told_apart_unless_merged(members, merge):
    both = JoinedPacks(members, merge_classes=merge)
    if merge:
        expected = ("ant", "bee", "cat", "dog", "eel", "fly", "gnat")
    else:
        expected = ("ant", "imagefolder/bee", "cat", "dog", "eel", "insects/bee", "fly", "gnat")
    assert both.manifest.classes == expected
    assert both.manifest.domains == ("day", "night", "dusk")
    rows = np.arange(len(both.index))
    for label, source in zip(both.index.label.tolist(), both.sources(rows)):
        assert expected[label].split("/")[-1] == source.split("/")[1]


def test_packs_of_one_data_set_are_numbered(members):
    first, second = members
    second.manifest = dataclasses.replace(second.manifest, dataset="imagefolder")
    both = JoinedPacks([first, second])
    assert both.manifest.dataset == "imagefolder#1+imagefolder#2"
    keys = both.keys(np.array([0, len(first.index)]))
    assert [key.split("/")[0] for key in keys] == ["imagefolder#1", "imagefolder#2"]


def test_the_fingerprint_covers_the_packs_their_order_and_merging(members):
    both = [
        JoinedPacks(members),
        JoinedPacks(members[::-1]),
        JoinedPacks(members, merge_classes=True),
    ]
    assert len({pack.manifest.fingerprint for pack in [*both, *members]}) == 5
    again = JoinedPacks(members)
    assert again.manifest.fingerprint == both[0].manifest.fingerprint


def test_the_same_pack_twice_is_refused(members, pack_path, tmp_path):
    copy = Pack(shutil.copytree(pack_path, tmp_path / "copy"))
    with pytest.raises(ConfigError, match=r"pack and .*copy are the same pack"):
        JoinedPacks([*members, copy])


def test_classes_that_cannot_be_told_apart_are_refused(members):
    first, second = members
    names = ("insects/bee", "bee", "cat", "dog", "eel")
    first.manifest = dataclasses.replace(first.manifest, classes=names)
    with pytest.raises(ConfigError, match="2 classes would be called insects/bee"):
        JoinedPacks([first, second])


@pytest.mark.parametrize("balanced", [True, False])
def test_weights_scale_the_anchors_of_each_packs_classes(members, balanced):
    both = JoinedPacks(members)
    data = PairData.select(
        both, [Selection()] * 2, [1, 3], seed=0, num_negatives=1, balanced=balanced
    )
    pairs = data.draw(0, data.plan.pairs_per_epoch)
    anchors = pairs.rows[: data.plan.pairs_per_epoch][~pairs.pairs.different]
    by_label = np.bincount(both.index.label[anchors])
    assert by_label.tolist() == [12] * 5 + [36 if balanced else 24] * 3


def test_each_pack_has_a_selection_of_its_own(members):
    both = JoinedPacks(members)
    selections = [Selection(classes=("ant", "bee")), Selection(domains=("dusk",))]
    data = PairData.select(both, selections, seed=0)
    sources = both.sources(data.rows)
    first = [source for row, source in zip(data.rows, sources) if row < both.first_rows[1]]
    assert {source.split("/")[1] for source in first} == {"ant", "bee"}
    assert {source.split("/")[0] for source in sources[len(first) :]} == {"dusk"}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(classes=("ant",)), "insects: the pack has no class ant"),
        (Selection(classes=()), "insects: no image is selected"),
    ],
)
def test_the_pack_that_lacks_what_is_selected_is_named(members, selection, message):
    with pytest.raises(PackError, match=message):
        PairData.select(JoinedPacks(members), [Selection(), selection], seed=0)


def test_ranks_share_the_one_sequence_of_several_packs(members):
    both = JoinedPacks(members)
    whole = taken(pair_loader(both), 3)
    assert {row >= both.first_rows[1] for _, rows, _ in whole for row in rows} == {True, False}
    ranks = [taken(pair_loader(both, rank, 2), 3) for rank in range(2)]
    for step, (_, rows, images) in enumerate(whole):
        for side in range(2):
            parts = [np.split(rank[step][1], 2)[side] for rank in ranks]
            assert (np.concatenate(parts) == np.split(rows, 2)[side]).all()
            pixels = torch.cat([rank[step][2].chunk(2)[side] for rank in ranks])
            assert torch.equal(pixels, images.chunk(2)[side])


def damage(pack, row):
    shard = pack.path / pack.manifest.shards[pack.index.shard[row]].name
    with shard.open("r+b") as file:
        file.seek(int(pack.index.offset[row]))
        file.write(b"no image")


def test_a_damaged_sample_is_named_by_its_own_pack(members, insects_path, tmp_path, caplog):
    copy = Pack(shutil.copytree(insects_path, tmp_path / "copy"))
    both = JoinedPacks([members[0], copy])
    damage(copy, 5)
    row = both.first_rows[1] + 5
    name = f"sample {copy.keys(np.array([5]))[0]} of {copy.path} is damaged"
    loader = pair_loader(both)
    shown = np.concatenate([rows for _, rows, _ in taken(loader, 20)])
    assert loader.num_damaged == 1
    assert row not in shown
    assert name in caplog.text
    with pytest.raises(PackError, match=f"{name}; run `python -m sharding verify {copy.path}`"):
        list(ImageLoader(both, np.array([0, row]), decoding(), batch_size=2))
