"""A table of paths and classes as a data set: each format, and what may be wrong with a table."""

import csv
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runtime.errors import PackError
from sharding.__main__ import main
from sharding.format.opening import open_pack
from sharding.sources.table import TableOptions, table

COLUMNS = ("path", "class", "domain", "split", "label")
ROWS = [
    (f"{domain}/{class_}/{number}.jpg", class_, domain, split, label)
    for domain, split in (("day", "train"), ("night", "test"))
    for label, class_ in enumerate(("eel", "ant", "dog"))
    for number in (3, 1)
]


def write(path, columns=COLUMNS, rows=ROWS):
    rows = [row[: len(columns)] for row in rows]
    records = [dict(zip(columns, row)) for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([columns, *rows])
    return path


def pack(tree, listing, out, *options):
    root = ["--root", str(tree), "--list", str(listing), "--out", str(out)]
    return main(["pack", "table", *root, "--workers", "1", *options])


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_each_format_lists_the_same_data_set(kind, image_tree, tmp_path):
    dataset = table(image_tree, TableOptions(write(tmp_path / f"list.{kind}")))
    assert dataset.classes == ("eel", "ant", "dog")
    assert (dataset.domains, dataset.splits) == (("day", "night"), ("test", "train"))
    samples = list(dataset.samples())
    assert [sample.source for sample in samples] == [row[0] for row in ROWS]
    for sample, (_, class_, domain, split, _) in zip(samples, ROWS):
        assert dataset.classes[sample.label] == class_
        assert dataset.domains[sample.domain] == domain
        assert dataset.splits[sample.split] == split
        assert dataset.read(sample) == (image_tree / sample.source).read_bytes()


def test_a_table_reaches_the_pack_and_packing_again_says_so(
    image_tree, tmp_path, error_line, capsys
):
    listing, out = write(tmp_path / "list.csv"), tmp_path / "pack"
    assert pack(image_tree, listing, out, "--name", "birds") == 0
    contents = open_pack(out)
    assert contents.manifest.dataset == "birds"
    assert contents.read_sources().to_pylist() == [row[0] for row in ROWS]
    assert contents.index.label.tolist() == [row[4] for row in ROWS]
    assert main(["verify", str(out), "--decode"]) == 0
    capsys.readouterr()
    assert pack(image_tree, listing, out, "--name", "birds") == 0
    assert "already complete" in capsys.readouterr().out
    assert pack(image_tree, write(tmp_path / "list.csv", rows=ROWS[:-1]), out) == 2
    assert "different data set, number of files" in error_line()


def test_a_table_is_packed_in_parts_and_repaired(image_tree, tmp_path):
    listing, out = write(tmp_path / "list.csv"), tmp_path / "pack"
    for part in ("1/2", "2/2"):
        assert pack(image_tree, listing, out, "--shard-size", "20KB", "--part", part) == 0
    assert main(["merge", str(out)]) == 0
    undisturbed = tmp_path / "undisturbed"
    assert pack(image_tree, listing, undisturbed, "--shard-size", "20KB") == 0
    files = [path.name for path in undisturbed.iterdir()]
    assert len(files) > 7
    assert all((out / f).read_bytes() == (undisturbed / f).read_bytes() for f in files)
    shard = out / "shard-000001.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert pack(image_tree, listing, out, "--repair") == 0
    assert shard.read_bytes() == (undisturbed / shard.name).read_bytes()


def test_path_and_class_suffice_and_columns_may_have_any_name(image_tree, tmp_path):
    listing = write(tmp_path / "list.csv", ("file", "label", "x"), ROWS)
    options = TableOptions(listing, path_column="file", class_column="label", domain_column="x")
    dataset = table(image_tree, options)
    assert dataset.classes == ("ant", "dog", "eel")
    assert (dataset.domains, dataset.splits) == (("day", "night"), ("all",))
    plain = table(image_tree, TableOptions(write(tmp_path / "two.csv", COLUMNS[:2], ROWS)))
    assert (plain.domains, plain.splits) == (("default",), ("all",))


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    rows = [(f"{number}.jpg", number) for number in (10, 9, 2)]
    dataset = table(tmp_path, TableOptions(write(tmp_path / "list.jsonl", COLUMNS[:2], rows)))
    assert dataset.classes == ("2", "9", "10")


def test_a_listed_file_that_does_not_exist_is_rejected_by_name(image_tree, tmp_path, capsys):
    listing = write(
        tmp_path / "list.csv", rows=[*ROWS, ("day/ant/gone.jpg", "ant", "day", "test", 1)]
    )
    assert pack(image_tree, listing, tmp_path / "pack") == 0
    assert "1 files were not packed" in capsys.readouterr().out
    (line,) = (tmp_path / "pack" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "source": "day/ant/gone.jpg",
        "reason": "No such file or directory",
    }


def test_paths_are_compared_in_their_shortest_form(tmp_path):
    listing = write(tmp_path / "list.csv", COLUMNS[:2], [("./a//b.jpg", "x"), ("c.jpg", "x")])
    dataset = table(tmp_path, TableOptions(listing))
    assert [sample.source for sample in dataset.samples()] == ["a/b.jpg", "c.jpg"]


HEADER = "path,class,domain,split,label\n"
FAULTS = {
    "an-unknown-extension": ("list.xlsx", b"", "expected a table called .csv, .tsv, .jsonl,"),
    "empty": ("list.csv", b"", "is empty; its first line has to name the columns"),
    "no-rows": ("list.csv", b"path,class\n", "has no rows"),
    "no-such-column": ("list.csv", b"file,class\n", "no column 'path' but 'file', 'class'; say"),
    "a-column-twice": ("list.csv", b"path,class,class\n", "two columns 'class'"),
    "an-absolute-path": ("list.csv", b"path,class\na,x\n/b,x\n", "line 3: '/b' is absolute or"),
    "a-path-upwards": ("list.csv", b"path,class\na/../../b,x\n", "line 2: 'a/../../b' is absolute"),
    "a-path-twice": ("list.csv", b"path,class\na,x\nb,x\n./a,x\n", "line 4: 'a' stands in line 2"),
    "an-empty-field": ("list.csv", b"path,class\na,x\n\nb,\n", "line 4: 'class' is empty"),
    "a-ragged-line": ("list.csv", b"path,class\na,x\nb,x,y\n", "line 3: 3 fields instead of 2"),
    "an-open-quote": ("list.csv", b'path,class\n"a,x\n', "line 2: unexpected end of data"),
    "latin-1": ("list.csv", b"path,class\na,x\nb,caf\xe9\n", "line 3: not UTF-8"),
    "utf-16": ("list.tsv", "path\tclass\n".encode("utf-16"), "line 1: not UTF-8"),
    "a-nul": ("list.jsonl", b'{"path": "a\\u0000", "class": "x"}', "cannot be the path of a file"),
    "a-surrogate": ("list.jsonl", b'{"path": "\\ud800", "class": "x"}', "cannot be the path"),
    "a-control-character": ("list.jsonl", b'{"path": "a", "class": "x\\n"}', "cannot be a name"),
    "no-json": ("list.jsonl", b'{"path": "a", "class": "x"}\nb,x\n', "line 2: not a JSON object"),
    "deep-json": ("list.jsonl", b'{"path":' + b"[" * 10**5, "line 1: not a JSON object"),
    "a-json-list": ("list.jsonl", b'{"path": ["a"], "class": "x"}', "line 1: 'path' is neither"),
    "a-json-null": ("list.jsonl", b'{"path": "a", "class": null}', "line 1: 'class' is empty"),
    "no-parquet": ("list.parquet", b"path,class\n", "is not a readable Parquet table"),
    "labels-with-gaps": (
        "list.csv",
        b"path,class,label\na,x,0\nb,y,2\n",
        "line 3: '2' in 'label' is not one of 0 to 1",
    ),
    "a-label-that-is-no-number": (
        "list.csv",
        b"path,class,label\na,x,zero\n",
        "line 2: 'zero' in 'label' is not one of 0 to 0",
    ),
    "two-labels-of-a-class": (
        "list.csv",
        b"path,class,label\na,x,0\nb,y,1\nc,x,1\n",
        "line 4: class 'x' has label 1, in line 2 it has 0",
    ),
    "two-classes-of-a-label": (
        "list.csv",
        b"path,class,label\na,x,0\nb,y,0\n",
        "line 3: label 0 stands for class 'y', in line 2 for 'x'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_table_is_one_line_with_file_and_line_number(fault, tmp_path, error_line):
    name, content, message = FAULTS[fault]
    (tmp_path / name).write_bytes(content)
    assert pack(tmp_path, tmp_path / name, tmp_path / "pack") == 2
    line = error_line()
    assert message in line
    assert name in line
    assert not (tmp_path / "pack").exists()


def test_a_table_that_does_not_exist_is_one_line(tmp_path, error_line):
    assert pack(tmp_path, tmp_path / "gone.csv", tmp_path / "pack") == 2
    assert "cannot read" in error_line()


def test_more_domains_than_a_pack_can_have_are_an_error(tmp_path):
    rows = [(f"{number}.jpg", "x", f"domain {number}") for number in range(2**15)]
    with pytest.raises(PackError, match="32,768 domains, a pack has at most 32,767"):
        table(tmp_path, TableOptions(write(tmp_path / "list.csv", COLUMNS[:3], rows)))


def test_a_table_that_changes_while_it_is_listed_is_named(tmp_path):
    listing = write(tmp_path / "list.csv")
    dataset = table(tmp_path, TableOptions(listing))
    shutil.copyfile(write(tmp_path / "other.csv", rows=ROWS[1:]), listing)
    with pytest.raises(PackError, match="changed while it was read"):
        next(dataset.samples())
