"""Several packs read as one: their samples side by side, in the order of the packs."""

import mmap
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np

from pipelines.pack import Pack
from runtime.errors import ConfigError
from sharding.format.index import Index, key_name
from sharding.format.manifest import Manifest


class JoinedPacks(Pack):
    """Packs read as one, by everything that reads a pack.

    The rows, the shards and the classes of the packs follow one another; domains and splits of the
    same name are one. Names that occur in several packs are told apart: the class ``cat`` of the
    data set ``pets`` becomes ``pets/cat``, and the second of two packs of pets is ``pets#2``. Keys
    begin with the data set: ``pets/000000017``.

    Args:
        packs: two or more, all different.
        merge_classes: whether classes of the same name are one.

    Raises:
        ConfigError: a pack is given twice, or a class cannot be told apart.
    """

    def __init__(self, packs: Sequence[Pack], *, merge_classes: bool = False) -> None:
        self.path = Path(" + ".join(str(pack.path) for pack in packs))
        self.members = tuple(packs)
        self.first_rows = _starts(len(pack.index) for pack in packs)
        self._first_shards = _starts(len(pack.manifest.shards) for pack in packs)
        self._shards = {}
        manifests = [pack.manifest for pack in packs]
        self._names = _different([manifest.dataset for manifest in manifests])
        class_names = [manifest.classes for manifest in manifests]
        if not merge_classes:
            class_names = _side_by_side(class_names, self._names)
        classes = _united(class_names)
        domains = _united([manifest.domains for manifest in manifests])
        splits = _united([manifest.splits for manifest in manifests])
        self.manifest = Manifest(
            dataset="+".join(self._names),
            classes=classes,
            domains=domains,
            splits=splits,
            options={
                "packs": _fingerprints(packs),
                "merge_classes": merge_classes,
            },
            samples=sum(manifest.samples for manifest in manifests),
            bytes=sum(manifest.bytes for manifest in manifests),
            rejects=sum(manifest.rejects for manifest in manifests),
            shards=tuple(chain.from_iterable(manifest.shards for manifest in manifests)),
        )
        self.index = _joined(
            [
                {
                    **vars(pack.index),
                    "shard": pack.index.shard + np.int32(first_shard),
                    "label": _numbers(names, classes)[pack.index.label],
                    "domain": _numbers(pack.manifest.domains, domains)[pack.index.domain],
                    "split": _numbers(pack.manifest.splits, splits)[pack.index.split],
                }
                for pack, first_shard, names in zip(
                    packs, self._first_shards, class_names, strict=True
                )
            ]
        )

    def keys(self, rows: np.ndarray) -> list[str]:
        """The keys of ``rows``, int64 (n,), each after the name of its data set."""
        members = np.searchsorted(self.first_rows, rows, side="right") - 1
        return [
            f"{self._names[member]}/{key_name(key)}"
            for member, key in zip(members.tolist(), self.index.key[rows].tolist(), strict=True)
        ]

    def sources(self, rows: np.ndarray) -> list[str]:
        """The source paths of ``rows``, int64 (n,), each relative to its pack's packed tree."""
        located = map(self.locate, rows.tolist())
        return [where.pack.sources(np.array([where.row]))[0] for where in located]

    def _map(self, number: int) -> tuple[mmap.mmap, np.ndarray]:
        member = bisect_right(self._first_shards, number) - 1
        return self.members[member]._shard(number - self._first_shards[member])


def joined(packs: Sequence[Pack], *, merge_classes: bool = False) -> Pack:
    """The only one of ``packs``, or all of them joined; ConfigError as ``JoinedPacks``."""
    return packs[0] if len(packs) == 1 else JoinedPacks(packs, merge_classes=merge_classes)


def _starts(lengths: Iterable[int]) -> tuple[int, ...]:
    """Where each of several sequences begins when they follow one another."""
    return tuple(accumulate(lengths, initial=0))[:-1]


def _fingerprints(packs: Sequence[Pack]) -> dict[str, str | int | float | bool | None]:
    """The fingerprint of each pack by its number; ConfigError if two are the same."""
    found: dict[str, Pack] = {}
    for pack in packs:
        other = found.setdefault(pack.manifest.fingerprint, pack)
        if other is not pack:
            raise ConfigError(f"{other.path} and {pack.path} are the same pack; name it once")
    return {str(number): fingerprint for number, fingerprint in enumerate(found)}


def _different(names: Sequence[str]) -> tuple[str, ...]:
    """``names``, with their number from 1 on if any of them is repeated."""
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name}#{number}" for number, name in enumerate(names, start=1))


def _side_by_side(
    classes: Sequence[tuple[str, ...]], packs: Sequence[str]
) -> list[tuple[str, ...]]:
    """The names of each pack's classes, qualified by the pack's where several packs have them."""
    count = Counter(chain.from_iterable(classes))
    qualified = [
        tuple(f"{pack}/{name}" if count[name] > 1 else name for name in names)
        for pack, names in zip(packs, classes, strict=True)
    ]
    name, times = Counter(chain.from_iterable(qualified)).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"{times} classes would be called {name}; rename one and pack it again")
    return qualified


def _united(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All different names, in the order in which they first occur."""
    return tuple(dict.fromkeys(chain.from_iterable(names)))


def _numbers(names: Sequence[str], united: Sequence[str]) -> np.ndarray:
    """int32 (n,), the number of each of n ``names`` among the ``united``."""
    number = {name: number for number, name in enumerate(united)}
    return np.array([number[name] for name in names], dtype=np.int32)


def _joined(columns: Sequence[dict[str, np.ndarray]]) -> Index:
    return Index(**{name: np.concatenate([part[name] for part in columns]) for name in columns[0]})
