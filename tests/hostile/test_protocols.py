"""A protocol is a file that people write by hand: a slip in it is one line."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from alterations import GOOD, REFUSED, Registry, expect, snapshot, thinned
from alterations_files import KINDS
from kit import same_scores

PROTOCOLS = Registry()
INVALID = expect([REFUSED])
EITHER = expect([GOOD, REFUSED])  # with the results of the protocol as it was
OTHER = expect([GOOD, REFUSED], results=False)


def _change(change: Callable[[dict[str, Any]], Any], path: Path) -> None:
    content = yaml.safe_load(path.read_text("utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")


def _text(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _set(name: str, value: Any, path: Path) -> None:
    _change(lambda content: content.update({name: value}), path)


def _target(change: Callable[[dict[str, Any]], Any], path: Path) -> None:
    _change(lambda content: change(content["targets"]["day"]), path)


for kind in KINDS:
    same = kind.__name__ == "a_link_to_the_same_outside"
    slug = f"file-is-{kind.__name__.replace('_', '-')}"
    PROTOCOLS.add(slug, EITHER if same else INVALID, kind)

for slug, text in {
    "a-list": b"[1, 2]",
    "a-word": b"protocol",
    "null": b"null",
    "undecodable": b"name: \xff\xfe\x80",
    "not-yaml": b"name: [",
    "with-tabs": b"name:\n\t- a",
    "nested-too-deeply": b"[" * 50_000,
    "nested-mappings": b"{a: " * 20_000,
    "two-documents": b"name: a\n---\nname: b\n",
    "a-pickle": b"!!python/object/apply:os.mkdir [executed]",
    "of-control-characters": b"name: \x00\x1b[2J\n",
    "a-huge-number": b"name: 1" + b"0" * 5000,
    "an-alias-to-nothing": b"name: *nothing",
    "an-alias-to-itself": b"&a {name: a, dataset: *a, known: *a, targets: *a}",
}.items():
    PROTOCOLS.add(f"text-is-{slug}", INVALID, partial(_text, text))

for name in ("name", "dataset", "known", "targets"):
    drop = partial(lambda gone, content: content.pop(gone), name)
    PROTOCOLS.add(f"{name}-is-missing", INVALID, partial(_change, drop))
    for slug, value in (
        ("null", None),
        ("a-number", 5),
        ("a-mapping", {"a": "b"}),
        ("a-list-of-numbers", [1, 2]),
        ("an-empty-list", []),
        ("an-empty-word", ""),
        ("a-date", yaml.safe_load("2024-01-01")),
    ):
        PROTOCOLS.add(f"{name}-is-{slug}", INVALID, partial(_set, name, value))

for name, slug, expectation, value in (
    ("name", "markup-and-an-escape", EITHER, "[red]\x1b[2J[/]"),
    ("name", "of-two-lines", EITHER, "a\nerror: all is well"),
    ("name", "a-path", EITHER, "../../animals"),
    ("name", "very-long", EITHER, "a" * 10**5),
    ("known", "a-word", INVALID, "bee"),
    ("known", "with-a-class-twice", INVALID, ["bee", "cat", "dog", "bee"]),
    ("known", "with-an-unknown-class", INVALID, ["bee", "cat", "unicorn"]),
    ("known", "with-an-unknown-class-of-two-lines", INVALID, ["bee", "a\nerror: b", "cat"]),
    ("known", "with-an-unknown-class-of-escapes", INVALID, ["bee", "\x1b[2J[/]", "cat"]),
    ("known", "with-null", INVALID, ["bee", None, "cat"]),
    ("known", "with-a-list", INVALID, ["bee", ["cat"]]),
    ("known", "of-every-class", INVALID, ["ant", "bee", "cat", "dog"]),
    ("targets", "a-list-of-names", INVALID, ["day", "night"]),
    ("targets", "a-mapping-of-null", INVALID, {"day": None}),
    ("targets", "with-a-number-as-name", INVALID, {1: {"reference": [], "test": [{}]}}),
    ("color", "too-much", INVALID, "blue"),
):
    PROTOCOLS.add(f"{name}-is-{slug}", expectation, partial(_set, name, value))

for slug, expectation, changed in (
    ("lacks-tests", INVALID, {"reference": [{"domains": ["night"]}]}),
    ("has-an-unknown-key", INVALID, {"tests": [{}]}),
    ("has-no-tests", INVALID, {"test": []}),
    ("has-no-references", INVALID, {"reference": []}),
    ("has-null-for-references", INVALID, {"reference": None}),
    ("has-a-word-for-tests", INVALID, {"test": "all"}),
    ("has-a-mapping-for-tests", INVALID, {"test": {"domains": ["day"]}}),
    ("has-a-list-for-a-selection", INVALID, {"test": [["day"]]}),
    ("has-null-for-a-selection", INVALID, {"test": [None]}),
    ("has-an-unknown-key-in-a-selection", INVALID, {"test": [{"domain": ["day"]}]}),
    ("has-a-word-for-domains", INVALID, {"test": [{"domains": "day"}]}),
    ("has-a-number-for-domains", INVALID, {"test": [{"domains": 3}]}),
    ("has-numbers-for-domains", INVALID, {"test": [{"domains": [3]}]}),
    ("has-an-unknown-domain", INVALID, {"test": [{"domains": ["dusk"]}]}),
    ("has-an-unknown-split", INVALID, {"test": [{"splits": ["test"]}]}),
    ("has-a-word-for-classes", INVALID, {"test": [{"classes": "bee"}]}),
    ("has-null-for-a-class", INVALID, {"test": [{"classes": [None]}]}),
    ("has-a-mapping-for-classes", INVALID, {"test": [{"classes": {"bee": 1}}]}),
    ("has-no-domains", INVALID, {"test": [{"domains": []}]}),
    ("has-no-unknown-tests", INVALID, {"test": [{"classes": ["bee"], "domains": ["day"]}]}),
    ("has-no-known-tests", INVALID, {"test": [{"classes": ["ant"], "domains": ["day"]}]}),
    ("has-its-references-as-tests", INVALID, {"test": [{}]}),
    ("has-the-same-selection-twice", EITHER, {"test": [{"domains": ["day"]}] * 2}),
    ("has-a-leading-word", INVALID, {"test": [{"leading": "half"}]}),
    ("has-a-leading-word-as-fraction", INVALID,
     {"test": [{"leading": {"fraction": "half", "order": [1, 2, 3, 4, 5]}}]}),
    ("has-a-negative-leading-fraction", INVALID,
     {"test": [{"leading": {"fraction": -0.5, "order": [1, 2, 3, 4, 5]}}]}),
    ("has-a-leading-fraction-of-nan", INVALID,
     {"test": [{"leading": {"fraction": float("nan"), "order": [1, 2, 3, 4, 5]}}]}),
    ("has-a-leading-order-with-zero", INVALID,
     {"test": [{"leading": {"fraction": 0.5, "order": [0, 1, 2, 3, 4]}}]}),
    ("has-a-leading-order-with-a-repetition", INVALID,
     {"test": [{"leading": {"fraction": 0.5, "order": [1, 1, 2, 3, 4]}}]}),
    ("has-a-leading-order-of-words", INVALID,
     {"test": [{"leading": {"fraction": 0.5, "order": ["a", "b"]}}]}),
    ("has-a-leading-order-that-is-too-short", INVALID,
     {"test": [{"leading": {"fraction": 0.5, "order": [1, 2]}}]}),
    ("has-a-mask-that-is-not-hexadecimal", INVALID, {"test": [{"masks": {"bee": "zz"}}]}),
    ("has-a-mask-of-odd-length", INVALID, {"test": [{"masks": {"bee": "f8f"}}]}),
    ("has-a-mask-that-is-a-number", INVALID, {"test": [{"masks": {"bee": 7}}]}),
    ("has-a-list-for-masks", INVALID, {"test": [{"masks": ["ff"]}]}),
    ("has-a-mask-for-another-class", INVALID,
     {"test": [{"masks": {"bee": "ff"}, "classes": ["ant"]}]}),
    ("is-inverted-by-a-word", INVALID, {"test": [{"inverted": "no", "domains": ["day"]}]}),
):  # fmt: skip
    update = partial(lambda new, target: target.update(new), changed)
    PROTOCOLS.add(f"target-{slug}", expectation, partial(_target, update))


@PROTOCOLS(OTHER)
def a_target_has_a_name_of_markup_and_escapes(path: Path) -> None:
    _change(
        lambda content: content.update(
            targets={f"[/]\x1b[2J{name}": sets for name, sets in content["targets"].items()}
        ),
        path,
    )


@PROTOCOLS(EITHER)
def an_alias_bomb_is_in_the_text(path: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    path.write_text("\n".join(["l0: &l0 [lol]", *levels, path.read_text("utf-8")]), "utf-8")


@PROTOCOLS(INVALID)
def known_is_an_alias_bomb(path: Path) -> None:
    levels = [f"  - &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    text = "\n".join(["name: a", "dataset: b", "known:", "  - &l0 [lol]", *levels, "targets: {}"])
    path.write_text(text, "utf-8")


@PROTOCOLS(OTHER)
def a_key_comes_twice(path: Path) -> None:
    path.write_text(path.read_text("utf-8") + "known: [bee, cat]\n", "utf-8")


@PROTOCOLS(INVALID)
def known_has_a_hundred_thousand_classes(path: Path) -> None:
    path.write_text(f"name: a\ndataset: b\nknown: [{'bee, ' * 10**5}bee]\ntargets: {{}}\n")


def check(names: tuple[str, ...], alteration, kit, runner) -> None:
    protocol, out = kit.room / "protocol.yaml", kit.room.parent / "out"
    protocol.write_bytes(kit.protocol.read_bytes())
    alteration.apply(protocol)
    commands = {
        "evaluate": kit.evaluate("evaluate", out, "--protocol", protocol, "--cache", kit.cache),
        "validate": kit.train("validate", out / "run", f"--validation.protocol={protocol}"),
    }
    before = [snapshot(folder) for folder in (kit.room, kit.folder)]
    found = []
    for outcome in runner.run(*(commands[name] for name in names)):
        name, expectation = outcome.command.name, alteration.expectation
        breaches = outcome.breaches()
        if outcome.status not in expectation.of(name) and not breaches:
            breaches = [f"exit {outcome.status}: {outcome.stderr.strip()[-150:]!r}"]
        found += [f"{name}: {breach}" for breach in breaches]
        succeeded = name == "evaluate" and outcome.status == GOOD
        if succeeded and expectation.results and not same_scores(out / "results", kit.results):
            found.append(f"{name}: gives other scores without a word")
    if [snapshot(folder) for folder in (kit.room, kit.folder)] != before:
        found.append("something is written beside what was asked for")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("alteration", thinned(PROTOCOLS, 3))
def test_evaluation_refuses_a_wrong_protocol(alteration, kit, runner):
    check(("evaluate",), alteration, kit, runner)


@pytest.mark.slow
@pytest.mark.parametrize("alteration", PROTOCOLS, ids=lambda alteration: alteration.name)
def test_validation_refuses_a_wrong_protocol(alteration, kit, runner):
    check(("evaluate", "validate"), alteration, kit, runner)
