"""What `info` prints, whatever names the data set has and wherever it prints."""

import os
import subprocess
import sys

from PIL import Image

from sharding.__main__ import main


def packed(tmp_path, classes):
    for name in classes:
        (tmp_path / "tree" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "tree" / name / "0.jpg")
    arguments = ["--root", str(tmp_path / "tree"), "--out", str(tmp_path / "pack")]
    assert main(["pack", "imagefolder", *arguments, "--workers", "1"]) == 0
    return tmp_path / "pack"


def test_info_counts_the_images(pack_path, capsys):
    assert main(["info", str(pack_path)]) == 0
    printed = capsys.readouterr().out
    rows = [line.strip("│ ").replace("│", " ").split() for line in printed.splitlines()]
    assert ["1", "bee", "6", "6", "12"] in rows
    assert ["all", "30", "30", "60"] in rows
    assert "split all: 60 images" in printed


def test_names_are_printed_literally(tmp_path, capsys):
    pack = packed(tmp_path, ["[red]a[", "[link=x]b", ":smile:", "x[b]"])
    capsys.readouterr()
    assert main(["info", str(pack)]) == 0
    printed = capsys.readouterr().out
    for name in ("[red]a[", "[link=x]b", ":smile:", "x[b]"):
        assert name in printed


def test_folders_that_are_not_utf_8_or_hold_escapes_become_printable_classes(tmp_path, capfdbinary):
    pack = packed(tmp_path, ["plain", "\x1b[31mred", os.fsdecode(b"caf\xe9"), "a\nb"])
    assert main(["info", str(pack)]) == 0
    printed = capfdbinary.readouterr().out
    for name in (rb"\x1b[31mred", rb"caf\xe9", rb"a\x0ab", b"plain"):
        assert name in printed
    assert b"\x1b" not in printed


def test_info_prints_to_an_ascii_terminal(tmp_path):
    pack = packed(tmp_path, ["één", "plain"])
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    run = subprocess.run(
        [sys.executable, "-m", "sharding", "info", str(pack)], capture_output=True, env=environment
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.isascii()
    assert b"plain" in run.stdout
    assert rb"\xe9\xe9n" in run.stdout


def test_many_classes_and_domains_are_summed_up(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sharding.info._MAX_CLASSES", 2)
    monkeypatch.setattr("sharding.info._MAX_DOMAINS", 0)
    pack = packed(tmp_path, ["a", "b", "c", "d"])
    capsys.readouterr()
    assert main(["info", str(pack)]) == 0
    printed = capsys.readouterr().out
    assert "and 2 more classes, whose names are in manifest.json" in printed
    assert "default" not in printed
    assert any(line.replace("│", " ").split() == ["all", "4"] for line in printed.splitlines())
