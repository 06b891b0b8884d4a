"""Alterations of the files around a run's newest checkpoint, and what vouches for it."""

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from alterations import Registry, expect
from alterations_checkpoints import (
    CONFIG,
    EITHER,
    FILES,
    HARMLESS,
    METRICS,
    REFUSED,
    TRAINING,
    UNREADABLE,
    UNUSABLE,
    UNUSABLE_FOR_TRAINING,
    WEIGHTS,
)
from alterations_files import KINDS

FOLDERS = Registry()
NO_RUN = expect([REFUSED], resume=EITHER)
OTHER_STEP = expect([REFUSED], evaluate_step=EITHER, evaluate_file=EITHER)

for file, expectation in (
    (WEIGHTS, UNREADABLE),
    (CONFIG, UNUSABLE),
    (TRAINING, UNUSABLE_FOR_TRAINING),
    (METRICS, HARMLESS),
):
    for kind in KINDS:
        slug = f"{file}-is-{kind.__name__.replace('_', '-')}"
        same = kind.__name__ == "a_link_to_the_same_outside"
        apply = partial(lambda make, name, step: make(step / name), kind, file)
        FOLDERS.add(slug, HARMLESS if same else expectation, apply)


def others(step: Path) -> list[Path]:
    """What vouches for the FILES of a checkpoint."""
    return [path for path in step.iterdir() if path.name not in FILES]


def seal(step: Path, before: Path) -> None:
    """Let the checksums of the step folder ``before`` be those of ``step``, as a forger would."""
    for voucher in others(step):
        text = voucher.read_text()
        for name in FILES:
            old, new = (
                hashlib.sha256((folder / name).read_bytes()).hexdigest()
                for folder in (before, step)
            )
            text = text.replace(old, new)
        voucher.write_text(text)


@FOLDERS(UNREADABLE)
def checksums_are_garbage(step: Path) -> None:
    for voucher in others(step):
        voucher.write_bytes(b"\xff\xfe\x80")


@FOLDERS(UNREADABLE)
def checksums_are_nested_too_deeply(step: Path) -> None:
    for voucher in others(step):
        voucher.write_bytes(b"[" * 100_000)


@FOLDERS(UNREADABLE)
def checksums_are_a_fifo(step: Path) -> None:
    for voucher in others(step):
        voucher.unlink()
        os.mkfifo(voucher)


@FOLDERS(UNREADABLE)
def checksums_are_of_other_content(step: Path) -> None:
    for voucher in others(step):
        voucher.write_text(voucher.read_text().translate(str.maketrans("0123", "3210")))


@FOLDERS(HARMLESS)
def checksums_are_missing(step: Path) -> None:
    for voucher in others(step):
        voucher.unlink()


@FOLDERS(UNREADABLE)
def step_folder_is_empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def _newer(name: str, make: Callable[[Path], Any], step: Path) -> None:
    make(step.with_name(name))


for slug, name, expectation, make in (
    ("an-empty-folder", "step-00000009", OTHER_STEP, Path.mkdir),
    ("a-file", "step-00000009", OTHER_STEP, Path.touch),
    ("a-fifo", "step-00000009", OTHER_STEP, os.mkfifo),
    ("a-link-to-nothing", "step-00000009", OTHER_STEP, lambda path: path.symlink_to("nothing")),
    ("a-link-to-itself", "step-00000009", OTHER_STEP, lambda path: path.symlink_to(path.name)),
    ("a-folder-of-a-short-name", "step-9", HARMLESS, Path.mkdir),
    ("a-folder-with-a-word", "step-newest", HARMLESS, Path.mkdir),
    ("a-folder-of-other-digits", "step-\N{ARABIC-INDIC DIGIT NINE}0000000", HARMLESS, Path.mkdir),
    ("a-folder-with-an-escape", "step-\x1b[2J0000009", HARMLESS, Path.mkdir),
    ("a-partial-folder", ".step-00000009.partial", HARMLESS, Path.mkdir),
):
    FOLDERS.add(f"a-newer-step-is-{slug}", expectation, partial(_newer, name, make))


@FOLDERS(NO_RUN)
def checkpoints_are_a_file(step: Path) -> None:
    folder = step.parent
    shutil.rmtree(folder)
    folder.write_text("none")


@FOLDERS(NO_RUN)
def checkpoints_are_a_fifo(step: Path) -> None:
    folder = step.parent
    shutil.rmtree(folder)
    os.mkfifo(folder)


@FOLDERS(NO_RUN)
def run_is_a_file(step: Path) -> None:
    run = step.parents[1]
    shutil.rmtree(run)
    run.write_text("a run")


@FOLDERS(NO_RUN)
def run_is_a_fifo(step: Path) -> None:
    run = step.parents[1]
    shutil.rmtree(run)
    os.mkfifo(run)


@FOLDERS(HARMLESS)
def log_of_the_run_is_garbage(step: Path) -> None:
    (step.parents[1] / "log.jsonl").write_bytes(b"\xff\xfe[[[\n{}\n")


@FOLDERS(HARMLESS)
def log_of_the_run_is_a_folder(step: Path) -> None:
    (step.parents[1] / "log.jsonl").unlink()
    (step.parents[1] / "log.jsonl").mkdir()


@FOLDERS(HARMLESS)
def log_of_the_run_is_a_fifo(step: Path) -> None:
    (step.parents[1] / "log.jsonl").unlink()
    os.mkfifo(step.parents[1] / "log.jsonl")
