"""Lists in OODDB's form for a tree of any size, with the quirks of the published ones."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

NUMBER = re.compile(r"(\d+)\.\w+$")
ORDERS = 3


def classes_of(order: int, classes: Iterable[str]) -> list[str]:
    """The classes in the order of their labels: another choice of known ones for each order."""
    names = list(classes)
    return names[order * 5 :] + names[: order * 5]


def write(path: Path, lists: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lists))


def write_lists(folder: Path, classes: Iterable[str], known: int, images: dict[str, list]) -> None:
    """The lists of a data set of one domain, `train` and `test`, in three orders.

    ``images`` are those of a class, in the lists' form: the first half is for training. In every
    order the first class of the tests is listed a second time under an unknown label, as DTD's
    `polka-dotted` is.
    """
    for order in range(ORDERS):
        names = classes_of(order, classes)
        half = {name: len(images[name]) // 2 for name in names}
        train = {f"{n};{c}": images[c][: half[c]] for n, c in enumerate(names[:known])}
        test = {f"{n};{c}": images[c][half[c] :] for n, c in enumerate(names)}
        test[f"{known};{names[0]}"] = images[names[0]][half[names[0]] :]
        write(folder / f"train_o{order}.json", train)
        write(folder / f"test_o{order}.json", test)
