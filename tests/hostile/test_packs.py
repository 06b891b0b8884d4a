"""A pack may come from a stranger: every reader refuses, or reads what was packed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from alterations import GOOD, REFUSED, Alteration, Expectation, snapshot
from alterations_files import SECRET
from alterations_index import INDEXES
from alterations_manifest import MANIFESTS
from alterations_shards import SHARDS
from kit import Kit, same_scores, same_weights
from pack_expectations import DAMAGED, INVALID
from pack_files import (
    find_row,
    read_image,
    reseal_index,
    row,
    to_version_1,
    write_image,
)

from tests.commands import Command, Outcome, Runner

READERS = ("info", "verify", "decode", "stage", "show", "train", "train-checked", "evaluate")
STAGED_BYTES = 1 << 24


def pack_commands(kit: Kit, pack: Path, out: Path) -> dict[str, Command]:
    """The commands that read ``pack``; each writes into a folder of its name in ``out``."""
    for name in READERS:
        (out / name).mkdir()
    data = f"--data.pack={pack}"
    commands = (
        kit.sharding("info", "info", pack),
        kit.sharding("verify", "verify", pack, "--workers", "1"),
        kit.sharding("decode", "verify", pack, "--workers", "1", "--decode"),
        replace(
            kit.sharding("stage", "stage", pack, out / "stage" / "pack"),
            file_bytes=2 * STAGED_BYTES,
        ),
        kit.show(pack, out / "show" / "pairs.png"),
        kit.train("train", out / "train" / "run", data),
        kit.train("train-checked", out / "train-checked" / "run", data, "--input.check_crc=true"),
        kit.evaluate("evaluate", out / "evaluate", "--pack", pack),
    )
    return {command.name: command for command in commands}


def problems(kit: Kit, out: Path, outcome: Outcome, expectation: Expectation) -> list[str]:
    """How a command broke its expectation or what every command promises."""
    name = outcome.command.name
    found = outcome.failures(expectation.of(name))
    if outcome.status == GOOD and expectation.results:
        if name == "evaluate" and not same_scores(out / name / "results", kit.results):
            found.append("gives other scores without a word")
        replaces = "replaced" in outcome.stderr + outcome.stdout
        promised = name == "train-checked" or (name == "train" and expectation is not DAMAGED)
        if promised and not replaces and not same_weights(out / name / "run", kit.run):
            found.append("trains other weights without a word")
    if name == "stage":
        found += staged_problems(out / "stage")
    return [f"{name}: {problem}" for problem in found]


def staged_problems(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if any(path.is_symlink() or not path.is_file() for path in files):
        return ["copies what is not a regular file"]
    if sum(path.stat().st_size for path in files) > STAGED_BYTES:
        return ["copies far more than the pack"]
    if any(SECRET.encode() in path.read_bytes() for path in files):
        return ["copies what lies outside of the pack"]
    return []


def try_readers(
    names: tuple[str, ...], kit: Kit, runner: Runner, expectation: Expectation
) -> list[str]:
    """Let the commands ``names`` read the pack in the room, and list what they do wrong."""
    pack, out = kit.room / "pack", kit.room.parent / "out"
    around = (kit.room.parent / "neighbor", kit.room, kit.folder)
    before = [snapshot(folder) for folder in around]
    commands = pack_commands(kit, pack, out)
    found = []
    for outcome in runner.run(*(commands[name] for name in names)):
        found += problems(kit, out, outcome, expectation)
    if [snapshot(folder) for folder in around] != before:
        found.append("something is written besides what was asked for")
    return found


def try_repair(kit: Kit, runner: Runner, expectation: Expectation) -> list[str]:
    """Repair the pack in the room: what is reported as repaired has to be intact."""
    pack = kit.room / "pack"
    repair = ("verify", pack, "--workers", "1", "--repair", "--root", kit.tree)
    (outcome,) = runner.run(kit.sharding("repair", *repair))
    found = [f"repair: {problem}" for problem in outcome.breaches()]
    if outcome.status == GOOD and REFUSED not in expectation.of("verify"):
        (again,) = runner.run(kit.sharding("verify again", "verify", pack, "--workers", "1"))
        if again.status != GOOD:
            found.append(f"repair: exit 0, but then verify exits {again.status}")
    return found


def alter(kit: Kit, alteration: Alteration, seal: str) -> Expectation:
    """Copy the pack into the room and alter it.

    Args:
        seal: whether the manifest's checksum of the index is the old one (``stale``), agrees with
            what is there now (``sealed``), or is absent as in older packs (``version-1``).
    """
    pack = kit.room / "pack"
    shutil.copytree(kit.pack, pack)
    if seal == "version-1":
        to_version_1(pack)
    alteration.apply(pack)
    if seal == "sealed":
        reseal_index(pack)
    return INVALID if seal == "stale" and alteration in INDEXES else alteration.expectation


def fast_readers(position: int, expectation: Expectation) -> tuple[str, ...]:
    """The readers that look closest at what is altered, or each reader in turn."""
    light, heavy = ("info", "decode", "stage"), ("evaluate", "train", "show", "train-checked")
    if expectation is INVALID:  # they share what opens a pack
        turn = heavy[position // 4 % 4] if position % 4 == 0 else light[position % 3]
        return (turn,) if turn == "decode" else ("decode", turn)
    if expectation.of("evaluate") == {REFUSED}:
        return ("decode", "evaluate")
    return (
        ((*light, "evaluate")[position % 4],) if GOOD in expectation.of("decode") else ("decode",)
    )


def cases(seals: dict[str, list[Alteration]], complete: bool) -> list:
    return [
        pytest.param(
            alteration,
            seal,
            READERS if complete else fast_readers(position, alteration.expectation),
            id=f"{alteration.name}-{seal}",
        )
        for seal, alterations in seals.items()
        for position, alteration in enumerate(alterations)
    ]


def check(alteration, seal, names, kit, runner) -> None:
    expectation = alter(kit, alteration, seal)
    found = try_readers(names, kit, runner, expectation)
    if names is READERS:
        found += try_repair(kit, runner, expectation)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("alteration", "seal", "names"),
    cases({"as-is": [*MANIFESTS, *SHARDS][::2], "sealed": INDEXES[::2]}, complete=False),
)
def test_a_reader_refuses_or_reads_what_was_packed(alteration, seal, names, kit, runner):
    check(alteration, seal, names, kit, runner)


@pytest.mark.parametrize("alteration", INDEXES[1::8], ids=lambda alteration: alteration.name)
def test_an_index_that_the_manifest_does_not_know_is_refused(alteration, kit, runner):
    check(alteration, "stale", ("info",), kit, runner)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alteration", "seal", "names"),
    cases(
        {
            "as-is": [*MANIFESTS, *SHARDS],
            "sealed": INDEXES,
            "stale": INDEXES,
            "version-1": INDEXES,
        },
        complete=True,
    ),
)
def test_every_reader_refuses_or_reads_what_was_packed(alteration, seal, names, kit, runner):
    check(alteration, seal, names, kit, runner)


@pytest.mark.parametrize(
    "name",
    [
        "shard-000000.tar-is-missing",
        "shard-000000.tar-is-cut-short",
        "shard-is-1-bytes-longer",
        "dali-index-is-undecodable",
        "a-label-in-the-tar-is-another",
        "a-bit-of-a-jpeg-is-flipped-at-50-percent",
        "every-image-is-damaged",
    ],
)
def test_a_damaged_shard_is_repaired_from_its_tree(name, kit, runner):
    (alteration,) = (known for known in SHARDS if known.name == name)
    alter(kit, alteration, "as-is")
    repair = ("--repair", "--root", kit.tree, "--workers", "1")
    pack = kit.room / "pack"
    for options in (repair, ("--workers", "1")):
        (outcome,) = runner.run(kit.sharding("verify", "verify", pack, *options))
        assert (outcome.status, outcome.breaches()) == (GOOD, []), outcome
    assert (pack / "shard-000000.tar").read_bytes() == (kit.pack / "shard-000000.tar").read_bytes()


@pytest.mark.parametrize("name", ["offset-is-one-byte-late", "label-is-another"])
def test_a_repair_of_shards_does_not_pass_a_wrong_index_for_whole(name, kit, runner):
    (alteration,) = (known for known in INDEXES if known.name == name)
    assert not try_repair(kit, runner, alter(kit, alteration, "sealed"))


@pytest.mark.parametrize("suffix", ["0.jpg", "4.png"])
def test_evaluation_names_the_sample_of_which_a_bit_is_flipped(suffix, kit, runner):
    shutil.copytree(kit.pack, kit.room / "pack")
    number = find_row(kit.room / "pack", suffix)
    content = bytearray(read_image(kit.room / "pack", number))
    content[len(content) // 2] ^= 1
    write_image(kit.room / "pack", number, bytes(content))
    (outcome,) = runner.run(
        kit.evaluate("evaluate", kit.room.parent / "out", "--pack", kit.room / "pack")
    )
    assert (outcome.status, outcome.breaches()) == (REFUSED, []), outcome
    assert row(kit.pack, number)["key"] in outcome.stderr


def test_training_that_checks_names_and_replaces_the_sample_of_which_a_bit_is_flipped(kit, runner):
    shutil.copytree(kit.pack, kit.room / "pack")
    number = find_row(kit.room / "pack", "0.jpg")
    content = bytearray(read_image(kit.room / "pack", number))
    content[len(content) // 2] ^= 1
    write_image(kit.room / "pack", number, bytes(content))
    options = (f"--data.pack={kit.room / 'pack'}", "--input.check_crc=true")
    (outcome,) = runner.run(kit.train("train", kit.room.parent / "out" / "run", *options))
    assert (outcome.status, outcome.breaches()) == (GOOD, []), outcome
    assert row(kit.pack, number)["key"] in outcome.stderr + outcome.stdout


def test_training_names_and_replaces_a_sample_that_cannot_be_decoded(kit, runner):
    (alteration,) = (known for known in SHARDS if known.name == "a-forged-png-has-no-end")
    alter(kit, alteration, "as-is")
    pack, out = kit.room / "pack", kit.room.parent / "out"
    outcomes = runner.run(*(kit.train(run, out / run, f"--data.pack={pack}") for run in "abcd"))
    assert [(outcome.status, outcome.breaches()) for outcome in outcomes] == [(GOOD, [])] * 4
    key = row(kit.pack, find_row(kit.pack, "4.png"))["key"]
    assert all(key in outcome.stderr for outcome in outcomes)
