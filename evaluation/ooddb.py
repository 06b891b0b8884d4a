"""OODDB's protocols by name, such as `ooddb:dtd`; its lists are the user's copy.

Each setting has three orders, that is three choices of the known classes. Their results are
reported one by one and as mean and standard deviation over the orders.
"""

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from evaluation.layouts import LAYOUTS
from evaluation.lists import ImageList
from evaluation.protocol import Part, Protocol, Target
from runtime.errors import ConfigError

PREFIX = "ooddb:"
_ORDERS = (0, 1, 2)
_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


class _DataSet(NamedTuple):
    """The folder of its lists, and how many classes are known in each order."""

    folder: str
    known: int


class _Setting(NamedTuple):
    """Its name, and the lists of its references and tests without `_o<order>.json`."""

    name: str
    reference: str
    test: str


_DATA_SETS = {
    "domainnet": _DataSet("domainnet", 50),
    "dtd": _DataSet("dtd", 23),
    "patternnet": _DataSet("patternnet", 19),
    "cars": _DataSet("stanford_cars", 98),
    "sun397": _DataSet("sun", 198),
}

_DOMAINNET = {
    "intra-domain": [_Setting(d, f"{d}_train", f"{d}_test") for d in _DOMAINS],
    "multi-source": [_Setting(f"no_{d}-{d}", f"no_{d}_train", f"{d}_test") for d in _DOMAINS],
    "single-source": [
        _Setting(f"{source}-{target}", f"{source}_train", f"{target}_test")
        for source, target in permutations(_DOMAINS, 2)
    ],
}


def ooddb_protocol(name: str, lists: Path | None) -> Protocol:
    """The protocol ``name``: `ooddb:DATA_SET`, and of DomainNet, whose protocol has 42 settings,
    also those of `ooddb:domainnet/SETTING` and of `ooddb:domainnet/intra-domain`, `multi-source`
    and `single-source`.

    Args:
        name: as above; the data set's name is that of its pack.
        lists: the folder `OODDB/splits` of the benchmark's repository.

    Raises:
        ConfigError: there is no such protocol, or ``lists`` is None.
    """
    dataset, slash, part = name.removeprefix(PREFIX).partition("/")
    settings = list(_settings(dataset, part)) if bool(slash) == bool(part) else []
    if not settings:
        parts = ("real", "no_real-real", "real-sketch", *_DOMAINNET)
        names = (*_DATA_SETS, *(f"domainnet/{part}" for part in parts))
        raise ConfigError(
            f"there is no protocol {name}; write {PREFIX} and one of {', '.join(names)}, or other "
            "domains in place of real and sketch"
        )
    if lists is None:
        raise ConfigError(f"{name} needs OODDB's lists; add --lists with its folder OODDB/splits")
    folder, layout = lists / _DATA_SETS[dataset].folder, LAYOUTS[dataset]
    targets = [
        Target(
            f"{setting.name}, order {order}",
            (Part(ImageList(folder / f"{setting.reference}_o{order}.json", layout=layout)),),
            (Part(ImageList(folder / f"{setting.test}_o{order}.json", layout=layout)),),
            setting=setting.name,
        )
        for setting in settings
        for order in _ORDERS
    ]
    return Protocol(name, dataset, _DATA_SETS[dataset].known, tuple(targets))


def _settings(dataset: str, part: str) -> Iterator[_Setting]:
    """Those of the data set, or of a ``part`` of it; none where there is no such thing."""
    if dataset == "domainnet":
        for kind, settings in _DOMAINNET.items():
            yield from (s for s in settings if part in ("", kind, s.name))
    elif dataset in _DATA_SETS and not part:
        yield _Setting(dataset, "train", "test")
