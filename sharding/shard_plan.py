"""What determines the bytes of a pack, and where its shards are cut."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from runtime.errors import PackError
from sharding.format.files import MalformedError
from sharding.format.manifest import Manifest
from sharding.format.splitmix import INCREMENT, mix
from sharding.format.strict_json import Settings, exact_keys, integer, printable
from sharding.format.tar import sample_bytes
from sharding.images import ImageOptions
from sharding.sources.dataset import Dataset

_TREE = {
    "dataset": "data set",
    "classes": "classes",
    "domains": "domains",
    "splits": "splits",
    "samples": "number of files",
    "listing": "files (names, sizes or labels; the demo's seed)",
}
_NUMBERS = ("resize_short", "quality", "max_pixels")  # of the image options
_MAX_OPTION = 2**62
_OPTIONS = {"shard_size": "--shard-size", "shuffle_seed": "--seed"}


@dataclass(frozen=True)
class PackOptions:
    """What determines the bytes of a pack besides its data set.

    Attributes:
        shard_size: target size of a shard in bytes; the shards of a pack are about equally large.
            None for a sixteenth of the data set, but 16 MB to 512 MB, so that even a small data set
            can be divided among workers and readers.
        seed: random seed of the global shuffle, if the data set has one.
        image: how images are checked and converted.
    """

    shard_size: int | None = None
    seed: int = 0
    image: ImageOptions = field(default_factory=ImageOptions)


@dataclass(frozen=True)
class PackSpec:
    """What determines the bytes of a pack; equal specs give equal packs.

    Attributes:
        dataset, classes, domains, splits: as in the manifest.
        samples: number of listed files.
        listing: sha256 (hex) of their names, sizes, labels, domains and splits.
        shard_size: target size of a shard in bytes.
        shuffle_seed: random seed of the global shuffle, or None without one.
        image: how images are checked and converted.
    """

    dataset: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    samples: int
    listing: str
    shard_size: int
    shuffle_seed: int | None
    image: ImageOptions

    @staticmethod
    def of(manifest: Manifest) -> "PackSpec":
        """The spec of a complete pack.

        Raises:
            PackError: the options in its manifest are damaged.
        """
        stated = manifest.options
        try:
            exact_keys(stated, {"shard_size", "shuffle_seed", "image", "listing"}, "options")
            seed = stated["shuffle_seed"]
            return PackSpec(
                manifest.dataset,
                manifest.classes,
                manifest.domains,
                manifest.splits,
                manifest.samples + manifest.rejects,
                str(stated["listing"]),
                integer(stated["shard_size"], "shard_size", 1, _MAX_OPTION),
                None if seed is None else integer(seed, "shuffle_seed", -_MAX_OPTION, _MAX_OPTION),
                _image_options(stated["image"]),
            )
        except MalformedError as error:
            raise PackError(
                f"the manifest of a pack of {manifest.dataset} is damaged: {error}; pack again"
            ) from error

    def options(self) -> Settings:
        """The part of the spec that the manifest stores as its ``options``."""
        return {
            "shard_size": self.shard_size,
            "shuffle_seed": self.shuffle_seed,
            "image": asdict(self.image),
            "listing": self.listing,
        }

    def pack_options(self) -> PackOptions:
        """The options that give this spec."""
        return PackOptions(self.shard_size, self.shuffle_seed or 0, self.image)

    def changes(self, now: "PackSpec") -> list[str]:
        """Describe how ``now`` differs from this spec. If the tree differs, the options are not
        compared, since the default shard size depends on the tree."""
        return list(_changes(_TREE, self, now)) or [
            *_changes(_OPTIONS, self, now),
            *_changes(
                {entry.name: "--" + entry.name.replace("_", "-") for entry in fields(ImageOptions)},
                self.image,
                now.image,
            ),
        ]


@dataclass(frozen=True)
class ShardPlan:
    """A listed data set, cut into S shards.

    Attributes:
        spec: what determines the bytes of the pack.
        modified: sha256 (hex) of the modification times of the listed files.
        starts: S + 1 indices into the packing order: the first sample of each shard, then the
            number of samples.
    """

    spec: PackSpec
    modified: str
    starts: tuple[int, ...]

    @property
    def num_shards(self) -> int:
        """S, the number of shards."""
        return len(self.starts) - 1

    def to_json(self) -> str:
        """The plan as JSON, which ``from_json`` reads."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> "ShardPlan":
        """Read the plan that ``to_json`` wrote."""
        plan = json.loads(text)
        spec = plan["spec"] | {"image": ImageOptions(**plan["spec"]["image"])}
        for name in ("classes", "domains", "splits"):
            spec[name] = tuple(spec[name])
        return ShardPlan(PackSpec(**spec), plan["modified"], tuple(plan["starts"]))


@dataclass(frozen=True)
class Columns:
    """Size in bytes and split of N listed samples, both int (N,): the input to ``make_plan``."""

    size: np.ndarray
    split: np.ndarray


def _image_options(stated: Any) -> ImageOptions:
    exact_keys(stated, ImageOptions.__dataclass_fields__.keys(), "image")
    numbers = {name: integer(stated[name], name, 0, _MAX_OPTION) for name in _NUMBERS}
    return ImageOptions(decode_check=stated["decode_check"] is True, **numbers)


def make_plan(
    dataset: Dataset, options: PackOptions, columns: Columns, listing: str, modified: str
) -> ShardPlan:
    """Cut the N listed samples of ``dataset`` into shards of about equal size.

    In a shuffled data set the splits follow one another, and no shard holds samples of two splits.
    ``listing`` and ``modified`` are the sha256 (hex) of what was listed, see ``PackSpec`` and
    ``ShardPlan``.
    """
    shuffle_seed = options.seed if dataset.shuffled else None
    order = pack_order(columns.split, shuffle_seed)
    in_order = sample_bytes(columns.size[order])
    shard_size = options.shard_size or _usual_shard_size(int(in_order.sum()))
    starts = _starts(in_order, shard_size)
    if dataset.shuffled:
        starts |= set((np.flatnonzero(np.diff(columns.split[order])) + 1).tolist())
    spec = PackSpec(
        dataset.name,
        tuple(map(printable, dataset.classes)),
        tuple(map(printable, dataset.domains)),
        tuple(map(printable, dataset.splits)),
        len(order),
        listing,
        shard_size,
        shuffle_seed,
        options.image,
    )
    return ShardPlan(spec, modified, tuple(sorted(starts)))


def pack_order(split: np.ndarray, seed: int | None) -> np.ndarray:
    """int64 (N,), the numbers of the listed samples in packing order.

    Without a ``seed`` the order is that of the listing; with one it is by ``split``, int (N,), and
    within a split by the hash of the seed and the sample's number in the listing.
    """
    if seed is None:
        return np.arange(len(split))
    start = np.uint64(seed * 0xD1342543DE82EF95 & 0xFFFFFFFFFFFFFFFF)
    hashed = mix(start + np.arange(1, len(split) + 1, dtype=np.uint64) * INCREMENT)
    shuffled = np.argsort(hashed, kind="stable")
    return shuffled[np.argsort(split[shuffled], kind="stable")]


def _usual_shard_size(total: int) -> int:
    return min(max(total // 16, 16 * 10**6), 512 * 10**6)


def _starts(sizes: np.ndarray, shard_size: int) -> set[int]:
    """``ShardPlan.starts``, as a set, such that all shards are about equally large."""
    ends = np.cumsum(sizes)
    num_shards = min(len(sizes), -(-int(ends[-1]) // shard_size))
    targets = ends[-1] * np.arange(1, num_shards) / num_shards
    return {0, *np.searchsorted(ends, targets, side="right").tolist(), len(sizes)}


def _changes(words: dict[str, str], old: Any, new: Any) -> Iterator[str]:
    for name, word in words.items():
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            scalar = isinstance(before, int) or isinstance(now, int)
            yield f"{word} ({before} then, {now} now)" if scalar else word
