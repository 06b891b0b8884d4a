"""Alterations of ``manifest.json``."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from alterations import Registry
from alterations_files import neighbor
from pack_expectations import HARMLESS, INVALID, UNREAD
from pack_files import MANIFEST, SHARD, manifest

MANIFESTS = Registry()


def _write(content: bytes, pack: Path) -> None:
    (pack / MANIFEST).write_bytes(content)


def _set(name: str, value: Any, pack: Path) -> None:
    with manifest(pack) as fields:
        fields[name] = value(fields[name]) if callable(value) else value


def _remove(name: str, pack: Path) -> None:
    with manifest(pack) as fields:
        del fields[name]


def _set_shard(name: str, value: Any, pack: Path, number: int = 0) -> None:
    with manifest(pack) as fields:
        old = fields["shards"][number].get(name)
        fields["shards"][number][name] = value(old) if callable(value) else value


def _replace_text(change: Callable[[str], str], pack: Path) -> None:
    path = pack / MANIFEST
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


for slug, content in {
    "undecodable": b"\xff\xfe\x80{}",
    "in-utf-16": '{"schema_version": 1}'.encode("utf-16"),
    "only-white-space": b" \n\t\n",
    "a-list": b"[]",
    "a-list-of-itself": b'[{"schema_version": 1}]',
    "null": b"null",
    "a-number": b"7",
    "a-string": b'"manifest"',
    "an-empty-object": b"{}",
    "nested-too-deeply": b"[" * 200_000,
    "nested-objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "zeros": bytes(4096),
}.items():
    MANIFESTS.add(f"manifest-is-{slug}", INVALID, partial(_write, content))

for name in ("schema_version", "classes", "domains", "splits", "samples", "bytes", "shards"):
    MANIFESTS.add(f"manifest-lacks-{name}", INVALID, partial(_remove, name))

for name, slug, value in (
    ("schema_version", "99", 99),
    ("schema_version", "-1", -1),
    ("schema_version", "a-word", "1"),
    ("schema_version", "null", None),
    ("schema_version", "a-fraction", 1.5),
    ("schema_version", "true", True),
    ("schema_version", "a-list", [1]),
    ("samples", "a-fraction", 40.5),
    ("samples", "a-string", "40"),
    ("samples", "true", True),
    ("samples", "null", None),
    ("samples", "a-list", [40]),
    ("samples", "negative", -40),
    ("samples", "zero", 0),
    ("samples", "2-to-70", 2**70),
    ("samples", "nan", float("nan")),
    ("samples", "infinite", float("inf")),
    ("samples", "one-more", lambda n: n + 1),
    ("bytes", "one-less", lambda n: n - 1),
    ("bytes", "negative", -1),
    ("bytes", "a-string", "many"),
    ("bytes", "2-to-70", 2**70),
    ("rejects", "negative", -1),
    ("rejects", "a-string", "none"),
    ("rejects", "an-object", {}),
    ("dataset", "a-number", 5),
    ("dataset", "null", None),
    ("dataset", "a-list", ["imagefolder"]),
    ("options", "a-list", []),
    ("options", "a-number", 3),
    ("classes", "a-word", "abcd"),
    ("classes", "a-number", 4),
    ("classes", "null", None),
    ("classes", "empty", []),
    ("classes", "an-object", {"ant": 0, "bee": 1, "cat": 2, "dog": 3}),
    ("classes", "one-too-few", lambda names: names[:-1]),
    ("classes", "two-of-a-name", lambda names: [names[0], *names[:-1]]),
    ("classes", "with-a-number", lambda names: [1, *names[1:]]),
    ("classes", "with-null", lambda names: [None, *names[1:]]),
    ("classes", "with-a-list", lambda names: [["ant"], *names[1:]]),
    ("classes", "with-an-object", lambda names: [{"name": "ant"}, *names[1:]]),
    ("domains", "one-too-few", lambda names: names[:-1]),
    ("domains", "empty", []),
    ("domains", "with-a-number", lambda names: [7, *names[1:]]),
    ("domains", "with-a-list", lambda names: [[], *names[1:]]),
    ("splits", "empty", []),
    ("splits", "a-number", 1),
    ("splits", "with-null", [None]),
    ("shards", "empty", []),
    ("shards", "null", None),
    ("shards", "an-object", {}),
    ("shards", "a-list-of-names", lambda infos: [info["name"] for info in infos]),
    ("shards", "one-too-few", lambda infos: infos[:-1]),
    ("shards", "one-too-many", lambda infos: [*infos, {**infos[-1], "name": "shard-000099.tar"}]),
    ("shards", "one-twice", lambda infos: [infos[0], *infos[:-1]]),
    ("shards", "in-another-order", lambda infos: infos[::-1]),
    ("shards", "with-a-number", lambda infos: [3, *infos[1:]]),
):
    MANIFESTS.add(f"{name}-of-the-manifest-is-{slug}", INVALID, partial(_set, name, value))

for name, slug, value in (
    ("name", "in-the-parent-folder", "../shard-000000.tar"),
    ("name", "one-with-a-slash", "./shard-000000.tar"),
    ("name", "one-with-a-detour", "nowhere/../shard-000000.tar"),
    ("name", "absolute", "/etc/passwd"),
    ("name", "with-a-zero-byte", "shard-000000.tar\0"),
    ("name", "a-terminal-escape", "shard-\x1b]0;owned\x07\x1b[31m.tar"),
    ("name", "two-lines", "shard\nerror: all is well.tar"),
    ("name", "empty", ""),
    ("name", "a-dot", "."),
    ("name", "the-manifest", MANIFEST),
    ("name", "very-long", "shard-" + "0" * 5000 + ".tar"),
    ("name", "another-in-style", "images.tar"),
    ("name", "a-number", 0),
    ("name", "null", None),
    ("name", "a-list", [SHARD]),
    ("samples", "zero", 0),
    ("samples", "negative", -1),
    ("samples", "a-fraction", 2.5),
    ("samples", "a-string", "10"),
    ("samples", "one-more", lambda n: n + 1),
    ("samples", "2-to-70", 2**70),
    ("bytes", "one-more", lambda n: n + 1),
    ("bytes", "zero", 0),
    ("bytes", "negative", -5),
    ("bytes", "a-string", "40960"),
    ("bytes", "2-to-62", 2**62),
    ("sha256", "a-number", 0),
    ("sha256", "null", None),
    ("sha256", "too-short", "abc"),
    ("sha256", "not-hexadecimal", "z" * 64),
    ("size", "an-unknown-key", 3),
):
    MANIFESTS.add(f"{name}-of-a-shard-is-{slug}", INVALID, partial(_set_shard, name, value))

MANIFESTS.add("sha256-of-a-shard-is-another", UNREAD, partial(_set_shard, "sha256", "0" * 64))

for slug, value in (
    ("null", None),
    ("a-number", 1),
    ("without-rows", {"sha256": "0" * 64}),
    ("without-sha256", {"rows": 40}),
    ("with-a-word-for-rows", {"rows": "40", "sha256": "0" * 64}),
    ("with-negative-rows", {"rows": -40, "sha256": "0" * 64}),
    ("with-2-to-62-rows", {"rows": 2**62, "sha256": "0" * 64}),
    ("with-another-sha256", {"rows": 40, "sha256": "0" * 64}),
    ("with-a-number-for-sha256", {"rows": 40, "sha256": 0}),
):
    MANIFESTS.add(f"index-of-the-manifest-is-{slug}", INVALID, partial(_set, "index", value))


@MANIFESTS(INVALID)
def two_shards_exchange_their_samples(pack: Path) -> None:
    with manifest(pack) as fields:
        first, *_, last = fields["shards"]
        first["samples"], last["samples"] = first["samples"] - 1, last["samples"] + 1


@MANIFESTS(INVALID)
def a_number_has_5000_digits(pack: Path) -> None:
    _replace_text(lambda text: text.replace('"samples": 40', f'"samples": 4{"0" * 5000}'), pack)


@MANIFESTS(INVALID)
def a_number_has_an_exponent_of_400(pack: Path) -> None:
    _replace_text(lambda text: text.replace('"samples": 40', '"samples": 1e400'), pack)


@MANIFESTS(INVALID)
def a_key_comes_twice_the_wrong_one_last(pack: Path) -> None:
    _replace_text(lambda text: text.rstrip()[:-1] + ', "samples": 39}', pack)


@MANIFESTS(HARMLESS)
def a_key_comes_twice_the_right_one_last(pack: Path) -> None:
    _replace_text(lambda text: '{"samples": 39, ' + text[1:], pack)


@MANIFESTS(HARMLESS)
def options_nest_too_deeply(pack: Path) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    _replace_text(lambda text: text.replace('"options": {', f'"options": {{"deep": {deep}, '), pack)


@MANIFESTS(HARMLESS)
def options_are_empty(pack: Path) -> None:
    _set("options", {}, pack)


@MANIFESTS(HARMLESS)
def a_key_is_unknown(pack: Path) -> None:
    with manifest(pack) as fields:
        fields["color"] = "blue"


@MANIFESTS(HARMLESS)
def a_class_has_no_images(pack: Path) -> None:
    _set("classes", lambda names: [*names, "zebra"], pack)


@MANIFESTS(HARMLESS)
def a_class_without_images_has_a_lone_surrogate(pack: Path) -> None:
    _set("classes", lambda names: [*names, "\ud800"], pack)


@MANIFESTS(HARMLESS)
def a_class_without_images_has_zero_bytes_and_escapes(pack: Path) -> None:
    _set("classes", lambda names: [*names, "\0\x1b[2J\x1b]0;owned\x07[/][red]"], pack)


@MANIFESTS(HARMLESS)
def a_class_without_images_has_a_name_of_a_megabyte(pack: Path) -> None:
    _set("classes", lambda names: [*names, "z" * 10**6], pack)


@MANIFESTS(HARMLESS)
def the_data_set_has_another_name(pack: Path) -> None:
    _set("dataset", "\x1b[31m[/]pacs", pack)


@MANIFESTS(INVALID)
def a_string_is_a_gigabyte_long(pack: Path) -> None:
    path = pack / MANIFEST
    text = path.read_text()
    with path.open("r+b") as file:  # the hole reads as zeros and takes no room
        file.write(text.rstrip()[:-1].encode() + b', "note": "')
        file.seek(1 << 30)
        file.write(b'"}')


@MANIFESTS(INVALID)
def a_shard_lies_in_a_folder_beside_the_pack(pack: Path) -> None:
    shutil.copy(pack / SHARD, neighbor(pack / SHARD) / SHARD)
    _set_shard("name", f"../neighbor/{SHARD}", pack)


@MANIFESTS(INVALID)
def a_shard_has_an_absolute_name(pack: Path) -> None:
    shutil.copy(pack / SHARD, neighbor(pack / SHARD) / SHARD)
    _set_shard("name", str(neighbor(pack / SHARD) / SHARD), pack)


@MANIFESTS(INVALID)
def a_shard_is_a_link_under_another_name(pack: Path) -> None:
    (pack / "shard-000009.tar").symlink_to(SHARD)
    _set_shard("name", "shard-000009.tar", pack)
