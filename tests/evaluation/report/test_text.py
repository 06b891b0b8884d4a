"""Names from packs and protocols do no harm where they are shown."""

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby

import pytest
import yaml
from PIL import Image
from rich.console import Console

import evaluate
from evaluation.report.table import terminal_table
from evaluation.report.text import csv_cell, html_text, markdown_cell, plain
from sharding.__main__ import main as sharding

CLASSES = ("[red]markup", "<script>alert(1)<", "=1+1|a`b", "né")
DOMAIN = "\"><img src=x onerror='x'>"
NAME = "=cmd|' /C calc'!A0\x1b[31m\n<b>&"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 漢字 🙂", "Größe 漢字 🙂"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\u202eb\u2028c", "a\\u202eb\\u2028c"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert plain(text) == shown


def test_a_formula_becomes_text_in_a_cell():
    for first in "=+-@\t\r":
        assert csv_cell(f"{first}1").startswith("'")
    assert csv_cell("a=1") == "a=1"


def test_cells_and_elements_stay_as_they_are():
    assert markdown_cell("a|b\\|<c>\n") == "a\\|b\\\\\\|&lt;c>\\\\n"
    assert html_text("<a title='x\"'>&") == "&lt;a title=&#x27;x&quot;&#x27;&gt;&amp;"


@pytest.fixture(scope="module")
def output(run_folder, tmp_path_factory):
    """The folder with results on a pack and a protocol full of such names, and what was printed."""
    folder = tmp_path_factory.mktemp("hostile")
    for number in range(3 * len(CLASSES)):
        place = folder / "tree" / DOMAIN / CLASSES[number % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (20 * number, 0, 99)).save(place / f"{number}.jpg")
    pack = ["pack", "imagefolder", "--root", folder / "tree", "--out", folder / "pack"]
    assert sharding([str(word) for word in (*pack, "--workers", "1")]) == 0
    known = list(CLASSES[:-1])
    half = {"domains": [DOMAIN], "classes": known, "fraction": 0.5}
    tests = [{**half, "inverted": True}, {"classes": [CLASSES[-1]]}]
    content = {
        "name": NAME,
        "dataset": "imagefolder",
        "known": known,
        "targets": {NAME: {"reference": [half], "test": tests}},
    }
    (folder / "protocol.yaml").write_text(yaml.safe_dump(content))
    words = ["--protocol", folder / "protocol.yaml", "--pack", folder / "pack", "--device", "cpu"]
    words += ["--checkpoint", run_folder, "--out", folder / "out", "--no-cache"]
    words += ["--min-references", "1", "--resamples", "2"]
    console = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", console)
        assert evaluate.main([str(word) for word in words]) == 0
    return folder / "out", console.getvalue()


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links |= {value for name, value in attributes if name == "href"}

    handle_startendtag = handle_starttag


def test_the_page_has_no_element_or_handler_of_theirs(output):
    text = (output[0] / "report.html").read_text()
    page = _Elements()
    page.feed(text)
    assert not page.names & {"script", "b:", "iframe", "object"}
    assert page.links == {"#top", "#target-1"}
    assert not {name for name in page.attributes if name.startswith("on")}
    assert "\x1b" not in text
    for name in (*CLASSES, NAME):
        assert html_text(name) in text


def test_the_table_of_values_has_no_formula(output):
    with (output[0] / "results.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1][0] == rows[1][1] == "'" + plain(NAME)
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@")]


def test_the_markdown_tables_keep_their_columns(output):
    lines = (output[0] / "results.md").read_text().splitlines()
    tables = [list(part) for is_table, part in groupby(lines, lambda x: x[:1] == "|") if is_table]
    assert len(tables) == 2
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert not [line for line in lines if "<b>" in line or "\x1b" in line]


def test_the_terminal_gets_no_control_characters_and_no_markup(output):
    text = output[1]
    assert "\x1b" not in text
    assert "\\x1b[31m" in text.replace("\n", "").replace("│", "").replace(" ", "")


def test_markup_in_a_table_is_literal(results, capsys):
    protocol = replace(results[0].protocol, name="[red]name[/red]")
    targets = [replace(target, name="[b]x[/b]") for target in results[0].targets]
    table = terminal_table([replace(results[0], protocol=protocol, targets=targets)])
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    assert "[red]name[/red]: known" in console.file.getvalue()
    assert "[b]x[/b]" in console.file.getvalue()


def test_the_json_keeps_the_names(output):
    content = json.loads((output[0] / "results.json").read_text(encoding="utf-8"))
    assert content["benchmarks"][0]["name"] == NAME
    assert content["benchmarks"][0]["known"] == list(CLASSES[:-1])
