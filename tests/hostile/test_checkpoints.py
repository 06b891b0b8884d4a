"""A run may come from a stranger or a failing disk: it is used as it was written, or refused."""

import shutil

import pytest
from alterations import GOOD, REFUSED, Alteration, Expectation, expect, snapshot
from alterations_checkpoints import (
    BOMBS,
    CHECKPOINTS,
    EITHER,
    UNREADABLE,
    UNUSABLE,
    UNUSABLE_FOR_TRAINING,
)
from alterations_runs import FOLDERS, seal
from kit import STEPS, Kit, newest_step, same_scores, same_weights

from tests.commands import Command, Outcome, Runner
from tests.common import flip

READERS = ("evaluate-run", "evaluate-step", "evaluate-file", "resume", "warm")


def run_commands(kit: Kit, step: str) -> dict[str, Command]:
    """The commands that read the run in the room; the one that resumes it has its own copy."""
    run, out = kit.room / "run", kit.room.parent / "out"
    folder = run / "checkpoints" / step
    checkpoints = {
        "evaluate-run": run,
        "evaluate-step": folder,
        "evaluate-file": folder / "weights.safetensors",
    }
    commands = [
        kit.evaluate(name, out / name, "--checkpoint", path) for name, path in checkpoints.items()
    ]
    commands += [
        kit.train("resume", out / "resume" / "run", f"--train.iterations={STEPS + 1}"),
        kit.train("warm", out / "warm", f"--model.backbone_weights={run}", "--train.iterations=1"),
    ]
    return {command.name: command for command in commands}


def problems(kit: Kit, outcome: Outcome, expectation: Expectation) -> list[str]:
    name, out = outcome.command.name, kit.room.parent / "out"
    found = outcome.failures(expectation.of(name))
    if outcome.status == GOOD and expectation.results:
        if name.startswith("evaluate") and not same_scores(out / name / "results", kit.results):
            found.append("gives other scores without a word")
        if name == "resume" and not same_weights(out / name / "run", kit.longer_run):
            found.append("trains other weights without a word")
    return [f"{name}: {problem}" for problem in found]


def alter(kit: Kit, alteration: Alteration, sealed: bool) -> str:
    """Copy the run into the room and alter it, there and in the copy to be resumed; returns the
    name of the step folder."""
    step = newest_step(kit.run)
    for run in (kit.room / "run", kit.room.parent / "out" / "resume" / "run"):
        shutil.copytree(kit.run, run)
        copy = run / "checkpoints" / step.name
        alteration.apply(copy)
        if sealed:
            seal(copy, step)
    return step.name


def check(names, alteration: Alteration, sealed: bool, kit: Kit, runner: Runner) -> None:
    expectation = alteration.expectation
    if not sealed and alteration in CHECKPOINTS + BOMBS:
        expectation = stale(alteration)
    commands = run_commands(kit, alter(kit, alteration, sealed))
    around = (kit.room.parent / "neighbor", kit.room, kit.folder)
    checkpoints = kit.room.parent / "out" / "resume" / "run" / "checkpoints"
    before = [snapshot(folder) for folder in around]
    saved = snapshot(checkpoints)
    outcomes = runner.run(*(commands[name] for name in names))
    found = [text for outcome in outcomes for text in problems(kit, outcome, expectation)]
    for outcome in outcomes:
        failed = outcome.command.name == "resume" and outcome.status != GOOD
        if failed and snapshot(checkpoints) != saved:
            found.append("resume: changes checkpoints and fails")
    if (checkpoints.parent / "executed").exists():
        found.append("resume: executes code")
    if [snapshot(folder) for folder in around] != before:
        found.append("something is written besides what was asked for")
    assert not found, "\n".join(found)


def stale(alteration: Alteration) -> Expectation:
    """What is expected of an alteration under the old checksums."""
    if alteration.name.startswith(("a-bit-of-metrics", "metrics")):
        return expect(EITHER)
    if alteration.name.startswith(("a-bit-of-training", "training")):
        return UNUSABLE_FOR_TRAINING
    if alteration.name.startswith(("a-bit-of-weights", "weights", "header-of-weights")):
        return UNREADABLE
    return UNUSABLE


SEALED = [*CHECKPOINTS, *BOMBS]
STALE = [*SEALED, *FOLDERS]


def refusals(alterations: list[Alteration], command: str) -> list[Alteration]:
    return [known for known in alterations if GOOD not in known.expectation.of(command)]


def named(alteration: Alteration) -> str:
    return alteration.name


@pytest.mark.parametrize("alteration", refusals(CHECKPOINTS, "resume")[::4], ids=named)
def test_a_forged_checkpoint_is_not_resumed(alteration, kit, runner):
    check(("resume",), alteration, True, kit, runner)


@pytest.mark.parametrize("alteration", refusals(CHECKPOINTS, "evaluate-run")[1::4], ids=named)
def test_a_forged_checkpoint_is_not_evaluated(alteration, kit, runner):
    check(("evaluate-run",), alteration, True, kit, runner)


@pytest.mark.parametrize("alteration", refusals(FOLDERS, "resume")[::4], ids=named)
def test_a_damaged_run_is_not_resumed(alteration, kit, runner):
    check(("resume",), alteration, False, kit, runner)


@pytest.mark.parametrize("alteration", refusals(FOLDERS, "evaluate-run")[1::4], ids=named)
def test_a_damaged_run_is_not_evaluated(alteration, kit, runner):
    check(("evaluate-run",), alteration, False, kit, runner)


@pytest.mark.parametrize("alteration", CHECKPOINTS[:12:3], ids=named)
def test_what_does_not_have_its_checksum_is_refused(alteration, kit, runner):
    check(("resume", "evaluate-run"), alteration, False, kit, runner)


@pytest.mark.parametrize("alteration", [*CHECKPOINTS, *FOLDERS][::40], ids=named)
def test_a_backbone_is_refused_or_right(alteration, kit, runner):
    check(("warm",), alteration, False, kit, runner)


@pytest.mark.slow
@pytest.mark.parametrize("alteration", SEALED, ids=named)
def test_every_reader_refuses_or_uses_what_was_forged(alteration, kit, runner):
    check(READERS, alteration, True, kit, runner)


@pytest.mark.slow
@pytest.mark.parametrize("alteration", STALE, ids=named)
def test_every_reader_refuses_or_uses_what_was_saved(alteration, kit, runner):
    check(READERS, alteration, False, kit, runner)


@pytest.mark.parametrize("file", ["weights.safetensors", "config.yaml", "training.pt"])
def test_the_damaged_newest_checkpoint_is_named_and_no_older_one_is_taken(file, kit, runner):
    run = kit.room / "run"
    shutil.copytree(kit.run, run)
    step = newest_step(run)
    flip(step / file, (step / file).stat().st_size // 2)
    reader = "resume" if file == "training.pt" else "evaluate"
    command = {
        "resume": kit.train("resume", run, f"--train.iterations={STEPS + 1}"),
        "evaluate": kit.evaluate("evaluate", kit.room.parent / "out", "--checkpoint", run),
    }[reader]
    (outcome,) = runner.run(command)
    assert (outcome.status, outcome.breaches()) == (REFUSED, []), outcome
    assert step.name in outcome.stderr
    assert newest_step(run) == step
