"""Features that were kept are used as they were computed, or computed again, or refused."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from alterations import GOOD, REFUSED, Registry, expect, snapshot, thinned
from alterations_files import KINDS
from kit import same_scores
from safetensors import safe_open
from safetensors.torch import save_file

from tests.common import flip

CACHES = Registry()
EITHER = expect([GOOD, REFUSED])  # in any case the results are the right ones


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any], path: Path) -> None:
    """Change the tensors and keep what vouches for them."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)


def _set(name: str, change: Callable[[torch.Tensor], torch.Tensor], path: Path) -> None:
    _tensors(lambda tensors: tensors.update({name: change(tensors[name])}), path)


def _flip(share: float, path: Path) -> None:
    flip(path, int(share * path.stat().st_size), 6)


def _metadata(change: Callable[[dict[str, str]], Any], path: Path) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header.setdefault("__metadata__", {}))
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


for kind in KINDS:
    CACHES.add(f"file-is-{kind.__name__.replace('_', '-')}", EITHER, kind)
for share in (0.0, 0.01, 0.2, 0.5, 0.8, 0.999):
    slug = f"a-bit-is-flipped-at-{share:.1%}".replace("%", "-percent")
    CACHES.add(slug, EITHER, partial(_flip, share))
for name, slug, change in (
    ("features", "doubled", lambda old: old * 2),
    ("features", "shifted-by-a-row", lambda old: old.roll(1, 0)),
    ("features", "zero", torch.zeros_like),
    ("features", "nan", lambda old: old * torch.nan),
    ("features", "one-row-too-few", lambda old: old[:-1]),
    ("features", "of-no-rows", lambda old: old[:0]),
    ("features", "too-narrow", lambda old: old[:, :-1]),
    ("features", "flat", torch.flatten),
    ("features", "a-single-number", lambda old: old[0, 0]),
    ("features", "in-half-precision", lambda old: old.half()),
    ("features", "integers", lambda old: old.long()),
    ("features", "truths", lambda old: old > 0),
    ("rows", "backwards", lambda old: old.flip(0)),
    ("rows", "shifted-by-one", lambda old: old + 1),
    ("rows", "negative", lambda old: -old),
    ("rows", "all-the-same", torch.zeros_like),
    ("rows", "2-to-62", lambda old: old + 2**62),
    ("rows", "one-too-few", lambda old: old[1:]),
    ("rows", "none", lambda old: old[:0]),
    ("rows", "floats", lambda old: old.double()),
    ("rows", "nan", lambda old: old.double() * torch.nan),
    ("rows", "a-table", lambda old: old[None]),
    ("rows", "a-single-number", lambda old: old[0]),
    ("rows", "truths", lambda old: old > 0),
):
    CACHES.add(f"{name}-are-{slug}", EITHER, partial(_set, name, change))
for name in ("features", "rows"):
    drop = partial(lambda gone, tensors: tensors.pop(gone), name)
    CACHES.add(f"{name}-are-missing", EITHER, partial(_tensors, drop))
for slug, change in (
    ("is-missing", lambda metadata: metadata.clear()),
    ("has-no-checksum", lambda metadata: [metadata.pop(n) for n in list(metadata) if n != "key"]),
    ("is-of-another-key", lambda metadata: metadata.update(key="{}")),
    ("has-zeros-for-texts", lambda metadata: metadata.update(dict.fromkeys(metadata, "0" * 64))),
    ("is-large", lambda metadata: metadata.update(note="x" * 10**7)),
):
    CACHES.add(f"metadata-{slug}", EITHER, partial(_metadata, change))


@CACHES(EITHER)
def _a_file_more_lies_there(path: Path) -> None:
    path.with_name("0.safetensors").write_bytes(b"\xff" * 100)


@pytest.mark.parametrize("alteration", thinned(CACHES, 6))
def test_an_altered_cache_never_changes_a_result(alteration, kit, runner):
    out = kit.room.parent / "out"
    shutil.copytree(kit.cache, out / "cache")
    (file,) = (out / "cache").glob("*.safetensors")
    alteration.apply(file)
    around = (kit.room.parent / "neighbor", kit.room, kit.folder)
    before = [snapshot(folder) for folder in around]
    (outcome,) = runner.run(kit.evaluate("evaluate", out))
    assert not outcome.breaches(), "\n".join(outcome.breaches())
    assert outcome.status in alteration.expectation.of("evaluate"), outcome
    assert [snapshot(folder) for folder in around] == before
    if outcome.status == GOOD:
        assert same_scores(out / "results", kit.results), "other scores without a word"


def test_a_cache_as_it_was_is_used(kit, runner):
    out = kit.room.parent / "out"
    shutil.copytree(kit.cache, out / "cache")
    (outcome,) = runner.run(kit.evaluate("evaluate", out))
    assert (outcome.status, outcome.breaches()) == (GOOD, []), outcome
    assert json.loads((out / "results" / "results.json").read_text())["benchmarks"][0]["features"][
        "extracted"
    ] == 0  # fmt: skip


def test_two_evaluations_with_one_cache_are_both_right_or_refused(kit, runner):
    out = kit.room.parent / "out"
    options = ("--cache", out / "cache", "--out")
    commands = [kit.evaluate(name, out, *options, out / name) for name in ("one", "other")]
    for outcome in runner.run(*commands):
        assert outcome.breaches() == [], outcome
        assert outcome.status in (GOOD, REFUSED)
        if outcome.status == GOOD:
            assert same_scores(out / outcome.command.name, kit.results)
    (outcome,) = runner.run(kit.evaluate("afterwards", out))
    assert outcome.status == GOOD
    assert same_scores(out / "results", kit.results)
