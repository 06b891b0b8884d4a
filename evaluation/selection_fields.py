"""Selections of images as a protocol's YAML file writes them."""

import re

from evaluation.yaml_fields import Fields
from pipelines.selection import Leading, Selection

_NAMES = ("domains", "classes", "splits")
_PARTS = ("leading", "masks", "fraction")
_KEYS = (*_NAMES, *_PARTS, "seed", "inverted", "dataset")
_HEX_BYTES = re.compile(r"([0-9a-f]{2})+", re.IGNORECASE)


def read_selection(entry: Fields) -> Selection:
    """The selection that a part of a set describes; ConfigError if its keys or values are wrong."""
    entry.expect((), _KEYS)
    parts = [key for key in _PARTS if key in entry.values]
    if len(parts) > 1:
        entry.fail(f"{parts[0]} and {parts[1]} exclude each other")
    if "inverted" in entry.values and not parts:
        entry.fail(f"inverted needs one of {', '.join(_PARTS)}")
    if "seed" in entry.values and "fraction" not in entry.values:
        entry.fail("seed needs fraction")
    has = entry.values.__contains__
    names = {key: entry.words(key) if has(key) else None for key in _NAMES}
    masks = _masks(entry.mapping("masks")) if has("masks") else None
    if masks and names["classes"] and (absent := set(names["classes"]) - set(masks)):
        entry.fail(f"masks lacks the class {min(absent)}")
    return Selection(
        **names,
        leading=_leading(entry.mapping("leading")) if has("leading") else None,
        masks=masks,
        fraction=_fraction(entry) if has("fraction") else None,
        seed=entry.number("seed", int, 0, 2**63 - 1) if has("seed") else 0,
        inverted=entry.switch("inverted") if has("inverted") else False,
    )


def _fraction(entry: Fields) -> float:
    fraction = float(entry.number("fraction", float, 0, 1))
    if fraction in (0, 1):
        entry.fail("fraction must be between 0 and 1; leave it out to select all")
    return fraction


def _leading(entry: Fields) -> Leading:
    entry.expect(("fraction", "order"))
    order = entry.items("order")
    if any(type(number) is not int for number in order) or set(order) != set(
        range(1, len(order) + 1)
    ):
        entry.fail(f"order must hold each of the numbers 1 to {len(order)} once")
    return Leading(entry.number("fraction", float, 0, 1), tuple(order))


def _masks(entry: Fields) -> dict[str, str]:
    for class_ in entry.values:
        if not _HEX_BYTES.fullmatch(entry.word(class_)):
            entry.fail(f"the mask of {class_} must be an even number of hexadecimal digits")
    return entry.values
