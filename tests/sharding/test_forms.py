"""Each command of `docs/forms.md` makes a pack of an imitation of what its row describes."""

import csv
import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from sharding.__main__ import main
from sharding.format.opening import open_pack

PAGE = (Path(__file__).parents[2] / "docs" / "forms.md").read_text()
COMMANDS = [
    row
    for row in re.findall(
        r"^\| ([^|]+) \| `python -m sharding (pack [^`]+)` \|$", PAGE, re.MULTILINE
    )
    if not row[1].startswith("pack imagenet")  # those are in test_imagenet_forms.py
]
SPECIES = ("ant", "bee")


@pytest.fixture(scope="module")
def photo(image_tree):
    return (image_tree / "day" / "ant" / "0.jpg").read_bytes()


def tree(folder, photo, *groups):
    for group in groups:
        for species in SPECIES:
            (folder / group / species).mkdir(parents=True)
            (folder / group / species / "1.jpg").write_bytes(photo)


def table(path, columns, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows((f"{species}/1.jpg", species, "north") for species in SPECIES)


def shards(folder, photo):
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=1, verbose=0) as writer:
        for number in range(3):
            described = {"species": SPECIES[number % 2]}
            files = {"jpg": photo, "cls": number % 2, "json": described}
            writer.write({"__key__": f"{number}", **files})


def parquet(folder, photo, image, label):
    folder.mkdir()
    features = {label: {"_type": "ClassLabel", "names": SPECIES}}
    columns = {image: [{"bytes": photo, "path": "1.jpg"}] * 2, label: [0, 1], "camera": ["n", "s"]}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(rows, folder / "train-00000-of-00001.parquet")


IMITATIONS = {
    "a tree with a folder for each class": lambda here, photo: tree(here / "TREE", photo, "."),
    "such a tree with splits": lambda here, photo: tree(here / "TREE", photo, "train", "val"),
    "the same, with other names": lambda here, photo: tree(here / "TREE", photo, "fit", "holdout"),
    "images and a table": lambda here, photo: [
        tree(here / "TREE", photo, "."),
        table(here / "TABLE.csv", ("path", "class", "x")),
    ],
    "a table with other columns": lambda here, photo: [
        tree(here / "TREE", photo, "."),
        table(here / "TABLE.tsv", ("file", "species", "camera"), "\t"),
    ],
    "a WebDataset with `.cls`": lambda here, photo: shards(here / "shards", photo),
    "a WebDataset with the class": lambda here, photo: shards(here / "SHARDS", photo),
    "a WebDataset with numbers": lambda here, photo: [
        shards(here / "SHARDS", photo),
        (here / "NAMES.txt").write_text("\n".join(SPECIES)),
    ],
    "Parquet files": lambda here, photo: parquet(here / "DATA", photo, "image", "label"),
    "the same, with other columns": lambda here, photo: parquet(
        here / "DATA", photo, "photo", "species"
    ),
}


@pytest.mark.parametrize(("form", "command"), COMMANDS, ids=[form for form, _ in COMMANDS])
def test_the_command_of_a_form_packs_it(form, command, photo, tmp_path, monkeypatch):
    (make,) = (make for start, make in IMITATIONS.items() if form.startswith(start))
    make(tmp_path, photo)
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command), "--workers", "1"]) == 0
    manifest = open_pack(tmp_path / "PACK").manifest
    assert (manifest.samples, manifest.rejects) in ((2, 0), (3, 0), (4, 0))
    assert manifest.classes in (SPECIES, ("0", "1"))
    if "--splits" in command or "splits" in form:
        assert len(manifest.splits) == 2
    if "--domain-column" in command:
        assert manifest.domains != ("default",)


def test_every_imitation_has_a_row():
    assert len(COMMANDS) == len(IMITATIONS)
