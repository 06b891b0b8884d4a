"""Protocols that take known and unknown classes from different packs."""

import json
import shutil

import numpy as np
import pytest
import yaml

import evaluate
from evaluation.protocol import Protocol
from pipelines.pack import Pack
from pipelines.packs import JoinedPacks
from runtime.errors import ConfigError
from tests.evaluation.scores import scores

# Known are the animals, and so the bees among the insects are known, too.
CONTENT = {
    "name": "Animals against insects",
    "dataset": "imagefolder",
    "known": "all",
    "targets": {
        "all insects": {
            "reference": [{"domains": ["day"]}],
            "test": [{"domains": ["night"]}, {"dataset": "insects"}],
        },
        "flies": {
            "reference": [{"domains": ["day"]}],
            "test": [
                {"domains": ["night"], "classes": ["ant"]},
                {"dataset": "insects", "classes": ["fly"], "fraction": 0.5},
            ],
        },
    },
}


@pytest.fixture
def across(tmp_path):
    """Writes the protocol, with other values for some of its keys."""

    def write(**changes):
        path = tmp_path / "across.yaml"
        path.write_text(yaml.safe_dump(CONTENT | changes))
        return path

    return write


@pytest.fixture
def both(pack_path, insects_path):
    return f"{pack_path} {insects_path}"


def test_rows_lie_in_the_pack_of_their_data_set(across, pack_path, insects_path):
    protocol = Protocol.load(across())
    pack = JoinedPacks([Pack(insects_path), Pack(pack_path)])
    first = pack.first_rows[1]
    insects, flies = (protocol.rows(pack, target) for target in protocol.targets)
    assert insects.known == ("ant", "bee", "cat", "dog", "eel")
    assert (insects.reference >= first).all()
    assert len(insects.reference) == 30
    assert insects.test[:24].tolist() == list(range(24))
    names = [source.split("/")[1] for source in pack.sources(insects.test)]
    assert insects.test_name.tolist() == names
    expected = [insects.known.index(name) if name in insects.known else -1 for name in names]
    assert insects.test_class.tolist() == expected
    assert (flies.test_class == [-1] * 4 + [0] * 6).all()


def test_known_and_unknown_images_come_from_two_packs(arguments, across, both, tmp_path):
    words = arguments(protocol=across(), pack=both, evaluators="cosine")
    assert evaluate.main(words) == 0
    table = scores(tmp_path / "out")
    of_insects = table["target"] == "all insects"
    data_sets = np.array([key.split("/")[0] for key in table["key"]])
    assert (data_sets[of_insects] == "insects").sum() == 24
    assert set(table["class"][of_insects & ~table["known"]]) == {"fly", "gnat"}
    assert set(table["domain"][data_sets == "insects"]) == {"day", "dusk"}
    (benchmark,) = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    assert [member["path"] for member in benchmark["pack"]["members"]] == both.split()
    assert benchmark["features"] | {"seconds": 0} == {"images": 84, "extracted": 84, "seconds": 0}
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f"pack {path} sha256" in page for path in both.split())
    again = arguments("again", protocol=across(), pack=both, evaluators="cosine")
    assert evaluate.main(again) == 0
    (benchmark,) = json.loads((tmp_path / "again" / "results.json").read_text())["benchmarks"]
    assert benchmark["features"]["extracted"] == 0
    other = scores(tmp_path / "again")
    assert np.array_equal(other["cosine.normality"], table["cosine.normality"])


def test_a_damaged_image_of_the_second_pack_is_named(
    arguments, across, pack_path, insects_path, refusal, tmp_path
):
    copy = Pack(shutil.copytree(insects_path, tmp_path / "copy"))
    with (copy.path / copy.manifest.shards[0].name).open("r+b") as file:
        file.seek(int(copy.index.offset[0]))
        file.write(b"no image")
    (key,) = copy.keys(np.array([0]))
    line = refusal(arguments(protocol=across(), pack=f"{pack_path} {copy.path}"))
    assert f"sample {key} of {copy.path} is damaged; run `python -m sharding verify" in line


def test_lists_find_their_images_in_the_pack_of_their_data_set(across, both, tmp_path):
    (tmp_path / "known.txt").write_text("day/ant/0.jpg 0\nday/bee/1.jpg 1\n")
    (tmp_path / "test.txt").write_text("dusk/bee/0.jpg 1\ndusk/fly/3.jpg 7\n")
    sets = {
        "reference": [{"list": "known.txt"}],
        "test": [{"list": "test.txt", "dataset": "insects"}],
    }
    protocol = Protocol.load(across(known=2, targets={"listed": sets}))
    pack = JoinedPacks([Pack(path) for path in both.split()])
    rows = protocol.rows(pack, protocol.targets[0])
    assert pack.sources(rows.test) == ["dusk/bee/0.jpg", "dusk/fly/3.jpg"]
    assert (rows.test >= pack.first_rows[1]).all()
    assert rows.test_class.tolist() == [1, -1]


def test_a_pack_that_is_missing_or_there_twice_is_named(
    arguments, across, pack_path, both, insects_path, refusal, tmp_path
):
    message = "needs exactly one pack of insects, {} of the given packs match"
    assert message.format(0) in refusal(arguments(protocol=across(), pack=pack_path))
    copy = shutil.copytree(insects_path, tmp_path / "copy")
    assert message.format(2) in refusal(arguments(protocol=across(), pack=f"{both} {copy}"))
    assert "exactly one pack of imagefolder, 0" in refusal(
        arguments(protocol=across(), pack=insects_path)
    )


@pytest.mark.parametrize(
    ("known", "insects", "message"),
    [
        ("some", {}, "known is the word some, expected a list"),
        (["ant", "fly"], {}, "pack: the pack has no class fly"),
        (["ant"], {"dataset": ["insects"]}, "dataset is a list, expected a name"),
        (["ant"], {"dataset": "spiders"}, "exactly one pack of spiders, 0 of the given"),
        (
            ["ant"],
            {"classes": ["ant"]},
            "insects: the pack has no class ant; it has: bee, fly, gnat",
        ),
    ],
)
def test_a_protocol_over_several_packs_is_checked(
    arguments, across, both, refusal, known, insects, message
):
    sets = {"reference": [{"classes": ["ant"]}], "test": [{"dataset": "insects", **insects}]}
    path = across(known=known, targets={"insects": sets})
    assert message in refusal(arguments(protocol=path, pack=both))


def test_a_single_pack_is_taken_whatever_its_name(arguments, across, insects_path):
    sets = {
        "reference": [{"classes": ["bee"], "domains": ["day"]}],
        "test": [{"domains": ["dusk"]}],
    }
    path = across(known=["bee"], targets={"bees": sets})
    assert evaluate.main(arguments(protocol=path, pack=insects_path, evaluators="cosine")) == 0
    with pytest.raises(ConfigError, match="exactly one pack of imagefolder, 0"):
        Protocol.load(path).choose([Pack(insects_path)] * 2)
