"""Full disks, unwritable folders, odd names, poor terminals: no traceback, nothing half done."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from alterations import GOOD, REFUSED, thinned
from kit import STEPS, Kit, make_kit, newest_step, same_scores
from pack_files import MANIFEST

from tests.commands import ENVIRONMENT, Command, Outcome, running
from tests.common import ROOT, flip

ODD_CLASSES = (
    "=1+1",
    "@SUM(A1)",
    "[red]",
    "<img src=x onerror=alert(1)>",
    "sn\N{SNOWMAN}w\N{LATIN SMALL LETTER E WITH ACUTE}",
    "esc\x1b[2J\x1b]0;owned\x07",
    "two\nlines",
)
FULL_DISK = 24_000
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="session")
def odd_kit(tmp_path_factory, runner) -> Kit:
    """A kit whose classes, targets and protocol have names that mean something to a terminal, to
    a spreadsheet, to a browser or to a locale."""
    kit = make_kit(tmp_path_factory.mktemp("odd"), runner, ODD_CLASSES)
    protocol = yaml.safe_load(kit.protocol.read_text("utf-8"))
    names = ("=cmd|' /C calc'!A1", "<script>alert(1)</script>\x1b[31m[/]")
    protocol["targets"] = dict(zip(names, protocol["targets"].values(), strict=True))
    protocol["name"] = "+[red]</title>\N{SNOWMAN}"
    kit.protocol.write_text(yaml.safe_dump(protocol, allow_unicode=True), "utf-8")
    return kit


@pytest.fixture(scope="session")
def ascii_runner(tmp_path_factory):
    """Commands under a locale that knows ASCII alone."""
    folder = tmp_path_factory.mktemp("ascii")
    with running(folder, **ENVIRONMENT, **ASCII) as started:
        yield started


def commands(kit: Kit, pack: Path, out: Path) -> list[Command]:
    """One of each kind, which all succeed where nothing stands in their way."""
    return [
        kit.sharding("info", "info", pack),
        kit.sharding("verify", "verify", pack, "--workers", "1"),
        kit.sharding("stage", "stage", pack, out / "staged"),
        kit.sharding("pack", "pack", "imagefolder", "--root", kit.tree, "--out", out / "pack",
                     "--workers", "1"),
        kit.show(pack, out / "pairs.png"),
        kit.train("train", out / "run", f"--data.pack={pack}"),
        kit.evaluate("evaluate", out, "--pack", pack),
    ]  # fmt: skip


WRITERS = ("stage", "pack", "show", "train", "evaluate")


def named(name: str, kit: Kit) -> Command:
    out = kit.room.parent / "out"
    return next(made for made in commands(kit, kit.pack, out) if made.name == name)


def assert_all_end(outcomes: list[Outcome], statuses: tuple[int, ...]) -> None:
    """Each with one of the ``statuses`` and as every command promises."""
    found = []
    for outcome in outcomes:
        breaches = outcome.breaches()
        if outcome.status not in statuses and not breaches:
            breaches = [f"exit {outcome.status}: {outcome.stderr.strip()[-150:]!r}"]
        found += [f"{outcome.command.name}: {breach}" for breach in breaches]
    assert not found, "\n".join(found)


def test_a_full_standard_output_is_one_line_or_nothing(kit, runner):
    out = kit.room.parent / "out"
    made = [replace(made, stdout=Path("/dev/full")) for made in commands(kit, kit.pack, out)]
    outcomes = runner.run(*made)
    assert_all_end(outcomes, (GOOD, REFUSED))
    for outcome in outcomes:
        if outcome.status == GOOD and outcome.command.name == "train":
            assert newest_step(out / "run").name == f"step-{STEPS:08d}"


@pytest.mark.parametrize("encoding", thinned(["ascii", "utf-8"], 2))
def test_odd_names_do_not_disturb(encoding, odd_kit, kit, runner):
    odd = replace(odd_kit, room=kit.room)
    made = commands(odd, odd.pack, kit.room.parent / "out")
    outcomes = runner.run(*(replace(command, encoding=encoding) for command in made))
    assert_all_end(outcomes, (GOOD,))
    assert "[red]" in outcomes[0].stdout


@pytest.mark.slow
def test_a_locale_of_ascii_does_not_disturb(odd_kit, kit, ascii_runner):
    odd = replace(odd_kit, room=kit.room)
    made = commands(odd, odd.pack, kit.room.parent / "out")
    outcomes = ascii_runner.run(*(replace(command, encoding="ascii") for command in made))
    assert_all_end(outcomes, (GOOD,))


@pytest.fixture
def odd_results(odd_kit, kit, runner) -> Path:
    out = kit.room.parent / "out"
    (outcome,) = runner.run(replace(odd_kit, room=kit.room).evaluate("evaluate", out))
    assert_all_end([outcome], (GOOD,))
    return out / "results"


def test_no_name_is_active_in_the_report_or_the_table(odd_results):
    report = (odd_results / "report.html").read_text("utf-8")
    assert "<img src=x" not in report
    assert "<script>alert" not in report
    assert "+[red]</title>" not in report
    assert "&lt;img src=x" in report
    rows = list(csv.reader((odd_results / "results.csv").open(newline="", encoding="utf-8")))
    cells = [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert not [cell for cell in cells if not cell.removeprefix("-")[:1].isdigit()]
    assert any("cmd|" in cell for row in rows for cell in row)


@pytest.mark.parametrize("place", thinned(["file", "below-a-file", "proc", "device"], 4))
def test_where_nothing_can_be_written_is_one_line(place, kit, runner):
    (kit.room / "file").write_text("mine")
    out = {
        "file": kit.room / "file",
        "below-a-file": kit.room / "file" / "below",
        "proc": Path("/proc/nothing/here"),
        "device": Path("/dev/full"),
    }[place]
    made = [made for made in commands(kit, kit.pack, out) if made.name in WRITERS]
    assert_all_end(runner.run(*made), (REFUSED,))
    assert (kit.room / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "file", thinned(["results", "cache", "run", "tensorboard", "pack", "staged"], 2)
)
def test_a_file_where_a_folder_should_be_is_one_line(file, kit, runner):
    out = kit.room.parent / "out"
    path = out / "run" / "tensorboard" if file == "tensorboard" else out / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    name = {"results": "evaluate", "cache": "evaluate", "run": "train", "tensorboard": "train",
            "pack": "pack", "staged": "stage"}[file]  # fmt: skip
    command = named(name, kit)
    if name == "train":
        command = replace(command, arguments=[*command.arguments, "--log.tensorboard=true"])
    (outcome,) = runner.run(command)
    assert_all_end([outcome], (REFUSED,))
    assert path.read_text() == "mine"


def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(kit, runner):
    out = kit.room.parent / "out"
    made = [made for made in commands(kit, kit.pack, out) if made.name in WRITERS]
    outcomes = runner.run(*(replace(command, file_bytes=FULL_DISK) for command in made))
    assert_all_end(outcomes, (REFUSED,))
    assert not (out / "staged").exists()
    assert not (out / "pack" / MANIFEST).exists()
    assert not (out / "results" / "results.json").exists()
    assert not list((out / "run" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("limit", thinned([4_000, 1_000, 64_000], 3))
def test_results_of_an_evaluation_appear_as_a_unit(limit, kit, runner):
    out = kit.room.parent / "out"
    shutil.copytree(kit.cache, out / "cache")
    command = replace(named("evaluate", kit), file_bytes=limit)
    (outcome,) = runner.run(command)
    assert outcome.breaches() == [], outcome
    left = sorted(path.name for path in (out / "results").glob("*"))
    assert outcome.status == GOOD or not left
    (outcome,) = runner.run(replace(command, file_bytes=None))
    assert outcome.status == GOOD
    assert same_scores(out / "results", kit.results)


def test_the_log_on_a_full_disk_is_one_line(kit, runner):
    options = ("--train.iterations=60", "--checkpoint.every=60", "--log.tensorboard=true")
    command = kit.train("train", kit.room.parent / "out" / "run", *options)
    (outcome,) = runner.run(replace(command, file_bytes=8_000))
    assert_all_end([outcome], (REFUSED,))


ODD_FOLDERS = ("two\nlines", "[red][", "sn\N{SNOWMAN}w", os.fsdecode(b"\xff\xfe"))


@pytest.mark.parametrize("folder", thinned(ODD_FOLDERS, 5))
def test_odd_paths_do_not_disturb(folder, kit, runner):
    pack, out = kit.room / folder / "pack", kit.room / folder / "out"
    shutil.copytree(kit.pack, pack)
    out.mkdir()
    assert_all_end(runner.run(*commands(kit, pack, out)), (GOOD, REFUSED))


@pytest.mark.parametrize("folder", thinned(ODD_FOLDERS, 5))
def test_odd_paths_to_nothing_are_one_line(folder, kit, runner):
    made = commands(kit, kit.room / folder, kit.room.parent / "out")
    outcomes = runner.run(*(command for command in made if command.name != "pack"))
    assert_all_end(outcomes, (REFUSED,))


def test_of_two_trainings_into_one_folder_the_second_is_refused(kit, runner):
    out = kit.room.parent / "out" / "run"
    options = ("--train.iterations=20", "--checkpoint.every=10")
    outcomes = runner.run(kit.train("one", out, *options), kit.train("other", out, *options))
    assert_all_end(outcomes, (GOOD, REFUSED))
    assert sorted(outcome.status for outcome in outcomes) == [GOOD, REFUSED]
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_two_evaluations_into_one_folder_are_both_right_or_one_is_refused(kit, runner):
    out = kit.room.parent / "out"
    outcomes = runner.run(kit.evaluate("one", out), kit.evaluate("other", out))
    assert_all_end(outcomes, (GOOD, REFUSED))
    assert GOOD in {outcome.status for outcome in outcomes}
    assert same_scores(out / "results", kit.results)
    assert json.loads((out / "results" / "results.json").read_text("utf-8"))


def run_as_usual(
    *arguments: str | Path, stdout: Path = Path(os.devnull), **variables: str
) -> tuple[int, str]:
    """The command as a user starts it; its status and standard error."""
    environment = {**os.environ, **ENVIRONMENT, **variables, "PYTHONPATH": str(ROOT)}
    with stdout.open("w") as file:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            stdout=file, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT, check=False,
        )  # fmt: skip
    return done.returncode, done.stderr


def test_a_command_of_its_own_ends_as_those_of_the_server_do(kit, runner):
    pack = kit.room / "pack"
    shutil.copytree(kit.pack, pack)
    (pack / MANIFEST).write_text("{}")
    command = kit.sharding("info", "info", pack)
    (outcome,) = runner.run(command)
    usual = run_as_usual("-m", "sharding", *command.arguments)
    assert usual == (outcome.status, outcome.stderr)
    assert usual[0] == REFUSED


def test_a_command_of_its_own_under_a_locale_of_ascii_does_not_fail(odd_kit):
    status, stderr = run_as_usual("-m", "sharding", "info", odd_kit.pack, **ASCII)
    assert (status, stderr) == (GOOD, "")


def test_a_command_of_its_own_with_a_full_standard_output_is_one_line(kit):
    status, stderr = run_as_usual("-m", "sharding", "info", kit.pack, stdout=Path("/dev/full"))
    assert status in (GOOD, REFUSED), stderr
    assert stderr.count("\n") == (status == REFUSED)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_slow_command_of_its_own_ends_as_those_of_the_server_do(name, kit, runner):
    pack = kit.room / "pack"
    shutil.copytree(kit.pack, pack)
    flip(pack / "index.parquet", 10)
    (command,) = (
        made for made in commands(kit, pack, kit.room.parent / "out") if made.name == name
    )
    (outcome,) = runner.run(command)
    script = "train_ddp.py" if name == "train" else "evaluate.py"
    assert run_as_usual(ROOT / script, *command.arguments) == (outcome.status, outcome.stderr)
