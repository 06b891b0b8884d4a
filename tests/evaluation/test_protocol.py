import numpy as np
import pytest
import yaml

from evaluation.protocol import Protocol
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.errors import PackError

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
    ],
)
def test_a_pack_that_does_not_fit_is_named(pack, tmp_path, changes, message):
    protocol = loaded(tmp_path, changes)
    with pytest.raises(PackError, match=message):
        protocol.rows(pack, protocol.targets[0])


@pytest.mark.parametrize(
    ("changes", "text", "message"),
    [
        ({"extra": 1}, None, "expected the keys name, dataset, known, targets"),
        ({"targets/night/test": [{"domain": ["day"]}]}, None, "unknown"),
        ({"targets/night/test": []}, None, "list of selections"),
        ({}, "a: [", "is not YAML"),
    ],
)
def test_a_malformed_protocol_is_refused(tmp_path, changes, text, message):
    with pytest.raises(PackError, match=message):
        loaded(tmp_path, changes, text)


def test_a_missing_protocol_or_target_is_named(tmp_path):
    with pytest.raises(PackError, match="cannot read protocol"):
        Protocol.load(tmp_path / "none.yaml")
    with pytest.raises(PackError, match="no target Moon; it has: night"):
        loaded(tmp_path).target("Moon")
