"""Image data sets of Hugging Face on disk: columns, class names, splits, and what is wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format.opening import open_pack
from sharding.sources.huggingface import HuggingFaceOptions, huggingface

CLASSES = ["eel", "ant", "dog"]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": CLASSES, "_type": "ClassLabel"},
    "style": {"names": ["photo", "sketch"], "_type": "ClassLabel"},
}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path, rows, features=FEATURES, kind=None):
    """A Parquet file with the metadata of `datasets`; a row is image, path, label, style."""
    columns = {
        "image": pa.array([{"bytes": row[0], "path": row[1]} for row in rows], kind or IMAGE),
        "label": [row[2] for row in rows],
        "style": [row[3] for row in rows],
    }
    info = json.dumps({"info": {"features": features}})
    metadata = {"huggingface": info} if features else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=4)
    return path


@pytest.fixture
def data(image_tree, tmp_path):
    """A folder as the hub has it: two files of one split, one of another."""
    rows = [
        (
            (image_tree / "day" / class_ / f"{number}.jpg").read_bytes(),
            f"{number}.jpg",
            label,
            label % 2,
        )
        for number in range(6)
        for label, class_ in enumerate(CLASSES)
    ]
    write(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet", rows[:9])
    write(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet", rows[9:15])
    write(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", rows[15:])
    return tmp_path / "hub"


def pack(root, out, *options):
    command = ["pack", "huggingface", "--root", str(root), "--out", str(out), "--workers", "1"]
    return main([*command, *options])


def test_images_classes_and_splits_of_the_files_reach_the_pack(data, image_tree, tmp_path, capsys):
    out = tmp_path / "pack"
    assert pack(data, out, "--domain-column", "style") == 0
    contents = open_pack(out)
    manifest, index = contents.manifest, contents.index
    assert manifest.classes == tuple(CLASSES)
    assert (manifest.domains, manifest.splits) == (("photo", "sketch"), ("train", "test"))
    assert index.split.tolist() == [1] * 3 + [0] * 15
    assert index.label.tolist() == [0, 1, 2] * 6
    assert index.domain.tolist() == [0, 1, 0] * 6
    sources = contents.read_sources().to_pylist()
    assert sources[4] == "train-00000-of-00002.parquet/000001/0.jpg"
    shard = (out / "shard-000000.tar").read_bytes()
    expected = (image_tree / "day" / "ant" / "0.jpg").read_bytes()
    assert shard[index.offset[4] : index.offset[4] + index.size[4]] == expected
    assert main(["verify", str(out), "--decode"]) == 0
    capsys.readouterr()
    assert pack(data, out, "--domain-column", "style") == 0
    assert "already complete" in capsys.readouterr().out
    assert pack(data, out) == 2
    assert "different domains" in capsys.readouterr().err


def test_classes_without_metadata_are_the_values(data, tmp_path):
    rows = [(b"x", None, value, None) for value in ("wren", "crow", "wren")]
    path = write(tmp_path / "a.parquet", rows, features=None)
    dataset = huggingface(path, HuggingFaceOptions())
    assert (dataset.classes, dataset.splits) == (("crow", "wren"), ("all",))
    assert [sample.source for sample in dataset.samples()] == [
        f"a.parquet/00000{number}" for number in range(3)
    ]


def test_a_row_without_image_or_class_is_rejected_by_name(data, image_tree, tmp_path, capsys):
    image = (image_tree / "day" / "ant" / "0.jpg").read_bytes()
    rows = [
        (image, "a.jpg", 0, 0),
        (None, "/data/b.jpg", 0, 0),
        (image, "c.jpg", None, 0),
        (image, "d.jpg", -1, 0),
        (image, "e.jpg", 3, 0),
        (image[:-200], None, 1, 0),
    ]
    write(tmp_path / "a.parquet", rows)
    assert pack(tmp_path / "a.parquet", tmp_path / "pack") == 0
    assert "5 files were not packed" in capsys.readouterr().out
    lines = map(json.loads, (tmp_path / "pack" / "rejects.jsonl").read_text().splitlines())
    reasons = {line["source"]: line["reason"] for line in lines}
    assert "truncated" in reasons.pop("a.parquet/000005")
    assert reasons == {
        "a.parquet/000001//data/b.jpg": "the row holds no bytes of an image",
        "a.parquet/000002/c.jpg": "'label' is empty",
        "a.parquet/000003/d.jpg": "a label that is not one of the 3 classes",
        "a.parquet/000004/e.jpg": "a label that is not one of the 3 classes",
    }


def test_files_with_other_class_names_are_an_error(data):
    features = {"label": {"names": CLASSES[::-1], "_type": "ClassLabel"}}
    write(data / "data" / "valid.parquet", [(b"x", None, 0, 0)], features)
    with pytest.raises(PackError, match=r"valid\.parquet: other class names in 'label' than in"):
        huggingface(data, HuggingFaceOptions())


@pytest.mark.parametrize(
    "features",
    [
        *([], {"label": 1}, {"label": {"_type": "ClassLabel", "names": [1, 2]}}),
        {"label": {"_type": "ClassLabel", "names": ["a", "a"]}},
        {"label": {"_type": "ClassLabel", "names": ["a\n"]}},
    ],
)
def test_metadata_without_sound_class_names_do_not_count(features, tmp_path):
    path = write(tmp_path / "a.parquet", [(b"x", None, 1, 0)], features)
    assert huggingface(path, HuggingFaceOptions()).classes == ("1",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--label-column", "fine"],
            "has no column 'fine' but 'image', 'label', 'style'; say which with --label-column",
        ),
        (["--image-column", "img"], "; say which with --image-column"),
        (["--domain-column", "place"], "; say which with --domain-column"),
        (["--image-column", "label"], "column 'label' holds int64; expected encoded images"),
    ],
)
def test_unknown_columns_are_one_line(options, message, data, tmp_path, capsys):
    assert pack(data, tmp_path / "pack", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_file_that_the_others_count_is_missed_unless_a_pattern_names_them(data, tmp_path, capsys):
    (data / "data" / "train-00001-of-00002.parquet").unlink()
    assert pack(data, tmp_path / "pack") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of the 2 files train-*-of-00002 are missing, number 1 is the first" in line
    assert pack(data / "data" / "t*.parquet", tmp_path / "pack") == 0


def test_arrow_files_and_damaged_files_are_one_line(data, tmp_path, capsys):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "data-00000-of-00001.arrow").touch()
    assert pack(tmp_path / "saved", tmp_path / "pack") == 2
    assert "write Parquet files with `dataset.to_parquet(FILE)`" in capsys.readouterr().err
    (data / "data" / "train-00000-of-00002.parquet").write_bytes(b"PAR1")
    assert pack(data, tmp_path / "pack") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train-00000-of-00002.parquet is not a Parquet file, or is damaged" in line
