import os

import numpy as np
import pytest
import yaml

from evaluation.protocol import Protocol
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.errors import ConfigError, PackError
from sharding.format.index import Index

PROTOCOL = {
    "name": "small",
    "dataset": "imagefolder",
    "known": ["dog", "ant"],
    "targets": {
        "night": {
            "reference": [{"domains": ["day"], "classes": ["dog", "ant"]}],
            "test": [{"domains": ["night"]}],
        }
    },
}

GOLDEN = [f"day/{c}/{n}.jpg" for c, n in [("ant", 1), ("ant", 2), ("ant", 5)]]
GOLDEN += [f"day/bee/{n}.jpg" for n in (1, 3, 5)]


@pytest.fixture
def pack(pack_path):
    return Pack(pack_path)


def loaded(tmp_path, changes=(), text=None):
    content = yaml.safe_load(yaml.safe_dump(PROTOCOL))
    for path, value in dict(changes).items():
        place = content
        *parents, last = path.split("/")
        for parent in parents:
            place = place[parent]
        place[last] = value
    file = tmp_path / "protocol.yaml"
    file.write_text(text or yaml.safe_dump(content))
    return Protocol.load(file)


def test_rows_follow_the_protocol(pack, tmp_path):
    protocol = loaded(tmp_path)
    rows = protocol.rows(pack, protocol.target("night"))
    index, names = pack.index, np.array(pack.manifest.classes)
    assert (np.array(pack.manifest.domains)[index.domain[rows.reference]] == "day").all()
    assert (np.array(pack.manifest.domains)[index.domain[rows.test]] == "night").all()
    assert len(rows.reference) == 12
    assert len(rows.test) == 30
    known = np.array(protocol.known)
    assert (known[rows.reference_class] == names[index.label[rows.reference]]).all()
    test_names = names[index.label[rows.test]]
    assert (
        rows.test_class == [list(known).index(n) if n in known else -1 for n in test_names]
    ).all()


def test_a_selection_of_nothing_is_all(pack):
    assert len(Selection().rows(pack)) == len(pack.index)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"known": ["dog", "wolf"]}, "no class wolf; it has: ant, bee"),
        ({"targets/night/test": [{"domains": ["dusk"]}]}, "no domain dusk"),
        ({"targets/night/test": [{"splits": ["val"]}]}, "no split val"),
        ({"targets/night/reference": [{"classes": ["dog"]}]}, "no reference image of class ant"),
        ({"targets/night/reference": [{"domains": ["day"]}]}, "class that is not known"),
        ({"targets/night/groups": {"a": ["bee", "ant"]}}, "group a: class ant is known"),
        ({"targets/night/groups": {"a": ["cow"]}}, "group a: no test image shows class cow"),
    ],
)
def test_a_pack_that_does_not_fit_is_named(pack, tmp_path, changes, message):
    protocol = loaded(tmp_path, changes)
    with pytest.raises(PackError, match=message):
        protocol.rows(pack, protocol.targets[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "unknown key extra; the keys are name, dataset, known, targets"),
        ({"name": 5}, r"name is a number \(5\), expected a name; put it in quotes"),
        ({"dataset": None}, "dataset is nothing, expected a name"),
        ({"known": [1, 2]}, r"known holds a number \(1\), expected names; put it in quotes"),
        ({"known": ["dog", True]}, r"known holds a switch \(True\)"),
        ({"known": "dog"}, r"known is the word dog, expected a list such as \[dog\]"),
        ({"known": []}, "known is an empty list"),
        ({"known": ["dog", "ant", "dog"]}, "known names dog twice"),
        ({"targets": {}}, "targets: expected a mapping of names to values, not an empty mapping"),
        ({"targets": ["night"]}, "targets: expected a mapping of names to values, not a list"),
        ({"targets/night": {"test": [{}]}}, "target.*night: the key reference is missing"),
        ({"targets/night/test": []}, "test is an empty list"),
        ({"targets/night/test": {"domains": ["day"]}}, "test is a mapping, expected a list"),
        ({"targets/night/test": ["day"]}, "test: item 1: expected a mapping.*the word day"),
        ({"targets/night/test": [{"domain": ["day"]}]}, "unknown key domain; the keys are domains"),
        (
            {"targets/night/test": [{"domains": "day"}]},
            r"test: item 1: domains is the word day, expected a list such as \[day\]",
        ),
        ({"targets/night/test": [{"classes": [[]]}]}, "classes holds an empty list"),
        ({"targets/night/test": [{"inverted": True}]}, "inverted needs one of leading, masks"),
        ({"targets/night/test": [{"seed": 1}]}, "seed needs fraction"),
        ({"targets/night/test": [{"fraction": 1}]}, "fraction must be between 0 and 1"),
        ({"targets/night/test": [{"fraction": -0.5}]}, "fraction is a number .-0.5., expected"),
        ({"targets/night/test": [{"fraction": float("nan")}]}, "fraction is a number .nan."),
        ({"targets/night/test": [{"fraction": 0.5, "seed": -1}]}, "seed is .* whole number"),
        ({"targets/night/test": [{"fraction": 0.5, "inverted": 1}]}, "expected true or false"),
        (
            {"targets/night/test": [{"fraction": 0.5, "masks": {"dog": "ff"}}]},
            "masks and fraction exclude each other",
        ),
        ({"targets/night/test": [{"masks": {"dog": "xy"}}]}, "mask of dog must be an even number"),
        (
            {"targets/night/test": [{"classes": ["dog", "ant"], "masks": {"dog": "ff"}}]},
            "masks lacks the class ant",
        ),
        ({"targets/night/groups": {"a": ["b"], "c": ["d", "b"]}}, "groups: a and c both name b"),
        ({"targets/night/groups": {"a": "bee"}}, "groups: a is the word bee, expected a list"),
        ({"targets/night/groups": {}}, "groups: expected a mapping.*not an empty mapping"),
        (
            {"targets/night/test": [{"leading": {"fraction": 0.5, "order": [1, 3]}}]},
            "order must hold each of the numbers 1 to 2 once",
        ),
    ],
)
def test_a_malformed_protocol_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        loaded(tmp_path, changes)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "protocol.yaml") in str(caught.value)


NESTED_ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("", "expected a mapping"),
        ("- a", "expected a mapping"),
        ("a: 1\nb: 2\na: 3", "line 3: the key a appears twice"),
        ("a: &a {b: 1}\nc: {<<: *a}", r"line 2: merge keys \(<<\) are not supported"),
        (NESTED_ALIASES, "stands for more than 200,000 values"),
        ("a: &a [*a]", "nested too deeply"),
        ("[" * 900, "nested too deeply"),
        ("name: 2020-01-01", "line 1: 2020-01-01 is neither a name nor a number; put it in quotes"),
        ("name: !!python/object/apply:os.getcwd []", "expected"),
        ("name: !!bool maybe", "maybe is neither a name nor a number"),
        ("name: 0x" + "f" * 5000, "is neither a name nor a number"),
        ("name: " + "9" * 5000, "is neither a name nor a number"),
        ("1: a", "the key 1 is not a name; put it in quotes"),
        ("#" + "x" * 600_000, "more than"),
    ],
    ids=lambda text: text[:12],
)
def test_a_file_that_is_no_protocol_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "protocol.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Protocol.load(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_of_another_kind_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin.yaml").write_bytes("name: Größe".encode("latin1"))
    for name, message in (
        ("fifo", "not a regular file"),
        ("latin.yaml", "utf-8"),
        ("none.yaml", "No such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            Protocol.load(tmp_path / name)


def test_a_missing_target_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no target Moon; it has: night"):
        loaded(tmp_path).target("Moon")


def test_an_image_that_is_reference_and_test_is_named(pack, tmp_path):
    protocol = loaded(tmp_path, {"targets/night/test": [{"classes": ["dog", "eel"]}]})
    row = np.flatnonzero((pack.index.label == 3) & (pack.index.domain == 0))[:1]
    (key,), (source,) = pack.keys(row), pack.sources(row)
    with pytest.raises(PackError, match=f"6 image.* both reference and test.* {key} .{source}"):
        protocol.rows(pack, protocol.targets[0])


def test_a_fraction_and_its_inverse_split_each_class(pack):
    drawn = Selection(fraction=0.7, seed=3).rows(pack)
    others = Selection(fraction=0.7, seed=3, inverted=True).rows(pack)
    assert sorted([*drawn, *others]) == list(range(len(pack.index)))
    index = pack.index
    groups, counts = np.unique(
        (index.domain[drawn], index.label[drawn]), axis=1, return_counts=True
    )
    assert groups.shape == (2, 10)
    assert set(counts) == {4}  # the whole number nearest to 0.7 * 6


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.5, 3), (0.99, 5)])
def test_a_fraction_leaves_images_on_both_sides(pack, fraction, count):
    rows = Selection(domains=("day",), classes=("ant",), fraction=fraction).rows(pack)
    assert len(rows) == count


def test_a_split_follows_from_the_seed_alone(pack):
    """Golden: computed once; it must never change, or published splits would."""
    drawn = Selection(domains=("day",), classes=("ant", "bee"), fraction=0.5, seed=7).rows(pack)
    assert sorted(pack.sources(drawn)) == GOLDEN
    other = Selection(domains=("day",), classes=("ant", "bee"), fraction=0.5, seed=8).rows(pack)
    assert sorted(pack.sources(other)) != GOLDEN


def test_a_split_depends_neither_on_the_packs_order_nor_on_other_images(pack):
    class Reversed:
        path, manifest = pack.path, pack.manifest
        index = Index(**{name: column[::-1] for name, column in vars(pack.index).items()})
        sources = staticmethod(lambda rows: pack.sources(len(pack.index) - 1 - rows))

    chosen = Selection(fraction=0.5, seed=7)
    # A part of the selection of equal fraction: domains and classes are drawn independently.
    of_day = Selection(domains=("day",), fraction=0.5, seed=7).rows(pack)
    rows = chosen.rows(pack)
    assert set(of_day) <= set(rows)
    backwards = len(pack.index) - 1 - chosen.rows(Reversed())
    assert sorted(backwards) == sorted(rows)
