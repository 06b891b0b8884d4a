"""Alterations of a detector's folder, and the sums that vouch for it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from alterations import GOOD, REFUSED, Registry, expect
from alterations_files import KINDS
from safetensors.torch import load_file, save_file

from tests.common import flip

RECORD, WEIGHTS, REFERENCES = "detector.json", "weights", "references"
FILES = (RECORD, WEIGHTS, REFERENCES)

RECORDS = Registry()  # of detector.json, which a forger can seal again
TENSORS = Registry()  # of a file of tensors, likewise
FOLDERS = Registry()  # of files and of the folder, which nobody can seal

EITHER = (GOOD, REFUSED)
UNREADABLE = expect([REFUSED])
HARMLESS = expect(EITHER)
FORGED = expect(EITHER, results=False)  # nobody can tell


def file_of(folder: Path, name: str) -> Path:
    """One of the FILES; those of tensors have their sha256 in their names."""
    (found,) = folder.glob(f"{name}*")
    return found


def seal(folder: Path) -> None:
    """Let ``detector.json`` have the sha256 that it states, as a forger would, if it is JSON."""
    path = folder / RECORD
    try:
        text = path.read_text()
        fields = json.loads(text)
        stated = fields.pop("sha256")
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return
    path.write_text(text.replace(stated, hashlib.sha256(canonical.encode()).hexdigest()))


def seal_tensors(folder: Path) -> None:
    """Let ``detector.json`` have the sizes and sums of the files of tensors, and these their names,
    then ``seal`` it."""
    fields = json.loads((folder / RECORD).read_text())
    for kind in (WEIGHTS, REFERENCES):
        content = file_of(folder, kind).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        file_of(folder, kind).rename(folder / f"{kind}-{sha256[:16]}.safetensors")
        fields["files"][kind] = {"bytes": len(content), "sha256": sha256}
    (folder / RECORD).write_text(json.dumps(fields))
    seal(folder)


def _flip(name: str, share: float, folder: Path) -> None:
    path = file_of(folder, name)
    flip(path, int(share * path.stat().st_size), 1)


for file, registry in ((RECORD, RECORDS), (WEIGHTS, TENSORS), (REFERENCES, TENSORS)):
    for share in (0.0, 0.3, 0.6, 0.99):
        slug = f"a-bit-of-{file}-is-flipped-at-{share:.0%}".replace("%", "-percent")
        registry.add(slug, FORGED, partial(_flip, file, share))


def _write(content: bytes, folder: Path) -> None:
    (folder / RECORD).write_bytes(content)


for slug, content in {
    "is-a-list": b"[1, 2]",
    "is-null": b"null",
    "is-an-empty-object": b"{}",
    "is-not-json": b"{",
    "is-undecodable": b"\xff\xfe\x80",
    "is-nested-too-deeply": b'{"format":' + b"[" * 100_000,
}.items():
    RECORDS.add(f"record-{slug}", UNREADABLE, partial(_write, content))


def _insert(text: str, folder: Path) -> None:
    """Put ``text`` at the beginning of the record's object."""
    content = (folder / RECORD).read_text()
    (folder / RECORD).write_text("{" + text + content.removeprefix("{"))


for slug, text in {
    "has-a-format-twice": '"format": 1, ',
    "has-a-number-of-5000-digits": f'"note": 1{"0" * 5000}, ',
    "has-a-nan": '"note": NaN, ',
    "has-a-key-of-two-lines-and-an-escape": '"\\u001b[2J\\nerror: all is well": 1, ',
    **{
        f"has-{depth}-lists-in-each-other": f'"note": {"[" * depth}{"]" * depth}, '
        for depth in (300, 900, 2000, 5000)
    },
}.items():
    RECORDS.add(f"record-{slug}", UNREADABLE, partial(_insert, text))


def _set(path: str, value: Any, folder: Path) -> None:
    """Set the field at ``path`` of the record; its last name is removed where it is ``_GONE``."""
    content = json.loads((folder / RECORD).read_text())
    *names, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    inner = content
    for name in names:
        inner = inner[name]
    if value is _GONE:
        del inner[last]
    else:
        inner[last] = value
    (folder / RECORD).write_text(json.dumps(content))


_GONE = object()
_HUGE = 10**17
_UNPRINTABLE = "\x1b[2J\nerror: all is well"
_NAMED: dict[str, Any] = {
    "gone": _GONE,
    "null": None,
    "a-list": [[]],
    "a-word": "fast",
    "a-fraction": 0.5,
    "negative": -1,
    "huge": _HUGE,
    "infinite": float("1e999"),
    "half-a-surrogate": "\ud800",
    "of-two-lines-and-an-escape": _UNPRINTABLE,
}
_TEXT = {**_NAMED, "too-long": "x" * 100_000}
_REFUSED_FIELDS: dict[str, tuple[str, ...]] = {
    "format": ("gone", "null", "a-word", "a-fraction", "negative", "huge"),
    "network": ("gone", "null", "a-list", "a-word"),
    "network.model": ("gone", "null", "a-list", "a-word"),
    "network.model.backbone": ("null", "a-list", "a-word", "negative", "half-a-surrogate",
                               "of-two-lines-and-an-escape"),
    "network.model.embed_dim": ("null", "a-word", "a-fraction", "negative", "huge", "gone"),
    "network.model.depth": ("null", "a-word", "a-fraction", "negative", "huge", "gone"),
    "network.model.num_heads": ("null", "a-word", "a-fraction", "negative", "huge"),
    "network.model.head": ("null", "a-list", "a-word"),
    "network.bare": ("gone", "null", "a-list", "a-word", "huge"),
    "network.path": ("gone", "a-list", "negative", "half-a-surrogate", "too-long",
                     "of-two-lines-and-an-escape"),
    "network.step": ("gone", "a-word", "a-fraction", "negative", "huge"),
    "network.sha256": ("gone", "null", "a-list", "a-word"),
    "preprocessing": ("null", "a-list", "a-word"),
    "preprocessing.image_size": ("null", "a-list", "a-word", "a-fraction", "negative", "huge"),
    "preprocessing.mean": ("null", "a-list", "a-word", "negative", "infinite"),
    "preprocessing.std": ("null", "a-list", "a-word", "negative", "infinite"),
    "preprocessing.interpolation": ("null", "a-list", "a-word"),
    "preprocessing.crop_mode": ("null", "a-list", "a-word"),
    "preprocessing.crop_pct": ("null", "a-list", "a-word", "negative", "huge", "infinite"),
    "evaluator": ("gone", "null", "a-list", "a-word", "of-two-lines-and-an-escape"),
    "options": ("gone", "null", "a-list", "a-word"),
    "options.significant": ("gone", "null", "a-word", "a-fraction", "negative"),
    "options.neighbors": ("gone", "null", "a-word", "a-fraction", "negative"),
    "classes": ("gone", "null", "a-list", "a-word"),
    "classes.0": ("gone", "null", "a-list", "a-word"),
    "classes.0.name": ("gone", "null", "a-list", "negative", "half-a-surrogate", "too-long",
                       "of-two-lines-and-an-escape"),
    "classes.0.images": ("gone", "null", "a-word", "a-fraction", "negative", "huge"),
    "classes.0.source": ("gone", "null", "a-list", "negative", "half-a-surrogate", "too-long",
                         "of-two-lines-and-an-escape"),
    "only_means": ("gone", "null", "a-list", "a-word", "huge"),
    "threshold": ("gone", "null", "a-list", "a-word"),
    "threshold.value": ("gone", "null", "a-list", "a-word", "infinite"),
    "threshold.recall": ("gone", "null", "a-word", "negative", "huge", "infinite"),
    "threshold.images": ("gone", "null", "a-word", "a-fraction", "negative"),
    "threshold.source": ("gone", "a-list", "negative", "half-a-surrogate", "too-long",
                         "of-two-lines-and-an-escape"),
    "threshold.held_out": ("gone", "null", "a-word", "negative", "huge", "infinite"),
    "files": ("gone", "null", "a-list", "a-word"),
    "files.weights": ("gone", "null", "a-list", "a-word"),
    "files.weights.bytes": ("gone", "null", "a-word", "a-fraction", "negative"),
    "files.references.sha256": ("gone", "null", "a-list", "a-word"),
    "versions": ("gone",),
}  # fmt: skip
for field, kinds in _REFUSED_FIELDS.items():
    for kind in kinds:
        RECORDS.add(f"{field}-in-record-is-{kind}", UNREADABLE, partial(_set, field, _TEXT[kind]))

for field, slug, value, expectation in (
    ("format", "of-the-future", 2, UNREADABLE),
    ("more", "there", 1, UNREADABLE),
    ("versions", "null", None, HARMLESS),
    ("network.model.backbone", "another-one", "test_resnet", UNREADABLE),
    ("network.model.backbone", "on-a-hub", "hf_hub:someone/something", UNREADABLE),
    ("network.model.backbone", "a-path", "../../etc/passwd", UNREADABLE),
    ("network.model.backbone", "of-billions-of-weights", "vit_giant_patch14_224", UNREADABLE),
    ("network.model.depth", "another-one", 2, UNREADABLE),
    ("network.bare", "true", True, UNREADABLE),
    ("preprocessing.image_size", "zero", 0, UNREADABLE),
    ("preprocessing.image_size", "another-one", 64, FORGED),
    ("preprocessing.crop_pct", "the-smallest", 0.1, FORGED),
    ("preprocessing.std", "zero", [0, 0, 0], UNREADABLE),
    ("evaluator", "of-a-classifier", "msp", UNREADABLE),
    ("evaluator", "another-one", "knn", FORGED),
    ("options.neighbors", "2-to-50", 2**50, HARMLESS),
    ("options.significant", "2-to-50", 2**50, HARMLESS),
    ("threshold.value", "another-one", 0.0, FORGED),
    ("threshold.value", "of-18-digits", _HUGE, FORGED),
    ("threshold.images", "huge", _HUGE, HARMLESS),
    ("threshold.source", "a-place", "/elsewhere", HARMLESS),
    ("only_means", "true", True, UNREADABLE),
    ("classes.0.name", "that-of-another", "cat", UNREADABLE),
    ("files.weights.bytes", "huge", _HUGE, HARMLESS),
    ("files.references.sha256", "of-zeros", "0" * 64, UNREADABLE),
):
    RECORDS.add(f"{field}-in-record-is-{slug}", expectation, partial(_set, field, value))


@RECORDS(UNREADABLE)
def threshold_in_record_is_1e999(folder: Path) -> None:
    text = (folder / RECORD).read_text()
    value = json.dumps(json.loads(text)["threshold"]["value"])
    (folder / RECORD).write_text(text.replace(f'"value": {value}', '"value": 1e999'))


@RECORDS(FORGED)
def classes_in_record_are_in_another_order(folder: Path) -> None:
    content = json.loads((folder / RECORD).read_text())
    content["classes"].reverse()
    (folder / RECORD).write_text(json.dumps(content))


@RECORDS(UNREADABLE)
def classes_in_record_are_one_too_many(folder: Path) -> None:
    content = json.loads((folder / RECORD).read_text())
    content["classes"].append({**content["classes"][0], "name": "eel"})
    (folder / RECORD).write_text(json.dumps(content))


def _tensors(kind: str, change: Callable[[dict[str, torch.Tensor]], Any], folder: Path) -> None:
    tensors = load_file(file_of(folder, kind))
    change(tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, file_of(folder, kind))


def _replace(name: str, make: Callable[[torch.Tensor], torch.Tensor], tensors: dict) -> None:
    tensors[name] = make(tensors[name])


def _all(value: Any, old: torch.Tensor) -> torch.Tensor:
    return torch.full_like(old, value)


def _nan(old: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(old.numel()).view(old.shape) == 0, torch.nan, old)


for name, slug, expectation, make in (
    ("features", "doubled", FORGED, lambda old: old * 2),
    ("features", "zero", FORGED, torch.zeros_like),
    ("features", "1e38", FORGED, partial(_all, 1e38)),
    ("features", "partly-nan", UNREADABLE, _nan),
    ("features", "one-row-too-few", UNREADABLE, lambda old: old[1:]),
    ("features", "of-no-rows", UNREADABLE, lambda old: old[:0]),
    ("features", "too-narrow", UNREADABLE, lambda old: old[:, 1:]),
    ("features", "flat", UNREADABLE, torch.flatten),
    ("features", "in-half-precision", UNREADABLE, torch.Tensor.half),
    ("labels", "backwards", FORGED, lambda old: old.flip(0)),
    ("labels", "zero", UNREADABLE, torch.zeros_like),
    ("labels", "shifted", UNREADABLE, lambda old: old + 1),
    ("labels", "negative", UNREADABLE, lambda old: -old),
    ("labels", "huge", UNREADABLE, lambda old: old + 2**62),
    ("labels", "none", UNREADABLE, lambda old: old[:0]),
    ("labels", "a-table", UNREADABLE, lambda old: old[None]),
    ("labels", "floats", UNREADABLE, torch.Tensor.float),
    ("held_out", "everywhere", UNREADABLE, torch.ones_like),
    ("held_out", "nowhere", HARMLESS, torch.zeros_like),
    ("held_out", "one-too-few", UNREADABLE, lambda old: old[1:]),
    ("held_out", "numbers", UNREADABLE, torch.Tensor.long),
    ("whitening.matrix", "zero", FORGED, torch.zeros_like),
    ("whitening.matrix", "1e38", FORGED, partial(_all, 1e38)),
    ("whitening.matrix", "partly-nan", UNREADABLE, _nan),
    ("whitening.matrix", "too-narrow", UNREADABLE, lambda old: old[:, 1:]),
    ("whitening.mean", "infinite", UNREADABLE, partial(_all, torch.inf)),
    ("whitening.mean", "a-table", UNREADABLE, lambda old: old[None]),
):
    change = partial(_tensors, REFERENCES, partial(_replace, name, make))
    TENSORS.add(f"{name.replace('.', '-')}-are-{slug}", expectation, change)
for name in ("features", "labels", "held_out", "whitening.mean", "whitening.matrix"):
    drop = partial(lambda gone, tensors: tensors.pop(gone), name)
    slug = f"{name.replace('.', '-')}-are-missing"
    TENSORS.add(slug, UNREADABLE, partial(_tensors, REFERENCES, drop))


def _relation(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.startswith("relation."))


for slug, expectation, change in (
    ("lack-a-tensor", UNREADABLE, lambda tensors: tensors.pop(_relation(tensors))),
    ("have-a-tensor-too-many", UNREADABLE, lambda tensors: tensors.update(more=torch.zeros(3))),
    ("have-a-nan", UNREADABLE, lambda tensors: _replace(_relation(tensors), _nan, tensors)),
    (
        "have-a-tensor-of-another-shape",
        UNREADABLE,
        lambda tensors: _replace(_relation(tensors), lambda old: old[None], tensors),
    ),
    (
        "have-a-name-of-two-lines-and-an-escape",
        UNREADABLE,
        lambda tensors: tensors.update({f"relation.{_UNPRINTABLE}": torch.zeros(1)}),
    ),
    ("are-none", UNREADABLE, lambda tensors: tensors.clear()),
):
    TENSORS.add(f"weights-{slug}", expectation, partial(_tensors, WEIGHTS, change))


@TENSORS(UNREADABLE)
def weights_and_references_are_exchanged(folder: Path) -> None:
    weights, references = file_of(folder, WEIGHTS), file_of(folder, REFERENCES)
    content = weights.read_bytes()
    weights.write_bytes(references.read_bytes())
    references.write_bytes(content)


@TENSORS(UNREADABLE)
def header_of_references_is_of_2_to_60_bytes(folder: Path) -> None:
    file_of(folder, REFERENCES).write_bytes((2**60).to_bytes(8, "little") + bytes(100))


for file in FILES:
    for kind in KINDS:
        slug = f"{file}-is-{kind.__name__.replace('_', '-')}"
        same = kind.__name__ == "a_link_to_the_same_outside"
        apply = partial(lambda make, name, folder: make(file_of(folder, name)), kind, file)
        FOLDERS.add(slug, HARMLESS if same else UNREADABLE, apply)


def _instead(make: Callable[[Path], Any], folder: Path) -> None:
    shutil.rmtree(folder)
    make(folder)


for slug, make in (
    ("missing", lambda folder: None),
    ("empty", Path.mkdir),
    ("a-file", Path.touch),
    ("a-fifo", os.mkfifo),
    ("a-link-to-itself", lambda folder: folder.symlink_to(folder.name)),
    ("a-link-to-dev-zero", lambda folder: folder.symlink_to("/dev/zero")),
):
    FOLDERS.add(f"folder-is-{slug}", UNREADABLE, partial(_instead, make))


@FOLDERS(HARMLESS)
def other_tensors_lie_beside(folder: Path) -> None:
    (folder / "weights-0123456789abcdef.safetensors").write_bytes(b"\xff" * 100)
