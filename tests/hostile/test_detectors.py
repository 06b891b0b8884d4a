"""A detector may come from a stranger or a failing disk: it is used as it was saved, or refused."""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from alterations import GOOD, Alteration, Expectation, snapshot, thinned
from alterations_detectors import (
    FOLDERS,
    RECORDS,
    TENSORS,
    UNREADABLE,
    seal,
    seal_tensors,
)
from kit import CLASSES, SCORES_TOLERANCE, Kit, succeed

from tests.commands import Command, Outcome, Runner

READERS = ("predict", "add-class", "remove-class")


@dataclass(frozen=True)
class Fitted:
    """A detector of all but the first class by cosine in a whitened space, and its predictions."""

    detector: Path
    predictions: Path


@pytest.fixture(scope="session")
def fitted(made_kit, runner, tmp_path_factory) -> Fitted:
    folder = tmp_path_factory.mktemp("fitted")
    found = Fitted(folder / "detector", folder / "predictions.csv")
    pack, (unknown, *known) = made_kit.pack, CLASSES
    fit = [
        *("fit", "--checkpoint", made_kit.run, "--references", pack, "--out", found.detector),
        *("--classes", *known, "--evaluator", "whitened-cosine", "--device", "cpu"),
        *("--covariance-pack", pack, "--covariance-classes", unknown, "--held-out", "0.5"),
    ]
    succeed(runner, Command("fit", "evaluation.__main__", fit, folder))
    succeed(runner, reader("predict", made_kit, found.detector, found.predictions))
    return found


def reader(name: str, kit: Kit, detector: Path, out: Path) -> Command:
    """The command that reads a detector; predictions go to ``out``."""
    ants = kit.tree / "day" / CLASSES[0]
    arguments = {
        "predict": [detector, kit.pack, "--out", out, "--device", "cpu"],
        "add-class": ["add-class", detector, CLASSES[0], ants, "--device", "cpu"],
        "remove-class": ["remove-class", detector, CLASSES[1]],
    }
    module = "predict" if name == "predict" else "evaluation.__main__"
    return Command(name, module, arguments[name], kit.room)


def same_predictions(found: Path, expected: Path) -> bool:
    ours, theirs = (list(csv.DictReader(path.open())) for path in (found, expected))
    return [row["decision"] for row in ours] == [row["decision"] for row in theirs] and np.allclose(
        *([float(row["normality"]) for row in rows] for rows in (ours, theirs)),
        atol=SCORES_TOLERANCE,
    )


def problems(outcome: Outcome, expectation: Expectation, out: Path, fitted: Fitted) -> list[str]:
    name = outcome.command.name
    found = outcome.failures(expectation.of(name))
    if name == "predict" and outcome.status != GOOD and out.exists():
        found.append("fails and leaves predictions")
    compared = name == "predict" and outcome.status == GOOD and expectation.results
    if compared and not same_predictions(out, fitted.predictions):
        found.append("predicts otherwise without a word")
    return [f"{name}: {problem}" for problem in found]


def check(
    names: tuple[str, ...], alteration: Alteration, sealed: bool, kit: Kit, fitted: Fitted,
    runner: Runner,
) -> None:  # fmt: skip
    """Each reader has a copy of its own, altered in the same way."""
    expectation = alteration.expectation
    if not sealed and alteration not in FOLDERS:
        expectation = UNREADABLE
    out = kit.room.parent / "out"
    folders = {name: out / name / "detector" for name in names}
    for folder in folders.values():
        shutil.copytree(fitted.detector, folder)
        alteration.apply(folder)
        if sealed:
            (seal if alteration in RECORDS else seal_tensors)(folder)
    around = (kit.room.parent / "neighbor", kit.room, kit.folder)
    before = [snapshot(folder) for folder in around]
    saved = {name: snapshot(folder) for name, folder in folders.items()}
    outcomes = runner.run(
        *(reader(name, kit, folders[name], out / "predictions.csv") for name in names)
    )
    found = []
    for outcome in outcomes:
        name = outcome.command.name
        found += problems(outcome, expectation, out / "predictions.csv", fitted)
        if outcome.status != GOOD and snapshot(folders[name]) != saved[name]:
            found.append(f"{name}: changes the detector and fails")
    if [snapshot(folder) for folder in around] != before:
        found.append("something is written besides what was asked for")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("alteration", thinned([*RECORDS, *TENSORS, *FOLDERS], 20))
def test_what_does_not_have_its_checksum_is_not_used(alteration, kit, fitted, runner):
    check(("predict",), alteration, False, kit, fitted, runner)


@pytest.mark.parametrize("alteration", thinned([*RECORDS, *TENSORS], 20))
def test_a_forged_detector_is_refused_or_used_as_it_says(alteration, kit, fitted, runner):
    check(READERS, alteration, True, kit, fitted, runner)
