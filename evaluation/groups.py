"""Groups of unknown classes, such as near and far ones, which are also evaluated one by one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.listed_rows import LabeledRows
from evaluation.yaml_fields import Fields
from runtime.errors import PackError


class Group(NamedTuple):
    """Unknown classes that are evaluated together."""

    name: str
    classes: tuple[str, ...]


def read_groups(entry: Fields) -> tuple[Group, ...]:
    """The groups that a mapping describes; ConfigError if a class is in two of them."""
    groups = tuple(Group(name, entry.words(name)) for name in entry.values)
    group_of: dict[str, str] = {}
    for group in groups:
        for class_ in group.classes:
            if class_ in group_of:
                entry.fail(f"{group_of[class_]} and {group.name} both name {class_}")
            group_of[class_] = group.name
    return groups


def group_tests(
    groups: Sequence[Group], test: LabeledRows, known: Sequence[str], where: str
) -> dict[str, np.ndarray]:
    """The ``test`` images of each group, bool (T,), by the group's name.

    Args:
        groups: of classes, by their names in ``test``.
        test: all test images, T of them; labels below the number of ``known`` classes are known.
        known: names of the known classes.
        where: protocol, target and pack, for messages.

    Raises:
        PackError: a class of a group is known, or no test image shows it.
    """
    is_known = test.labels < len(known)
    for group in groups:
        for class_ in group.classes:
            shows = test.names == class_
            if class_ in known or (shows & is_known).any():
                raise PackError(
                    f"{where}: group {group.name}: class {class_} is known; groups are of unknown "
                    "classes, so take it out"
                )
            if not shows.any():
                raise PackError(
                    f"{where}: group {group.name}: no test image shows class {class_}; take it "
                    "out, or add it to the tests"
                )
    return {group.name: np.isin(test.names, group.classes) for group in groups}
