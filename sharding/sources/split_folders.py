"""Where a tree has a folder for each split: `<split>/<class>`, `<split>/<domain>/<class>` or
`<domain>/<split>/<class>`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.tree import Group, folders, images_folder

SPLITS = ("train", "val", "valid", "validation", "test")


class SplitFolders(NamedTuple):
    """The groups of class folders of a tree, what their numbers stand for, and the top folders
    that are not used."""

    groups: list[Group]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    unused: list[str]


class _Place(NamedTuple):
    """A folder with class folders, below the root, and the names of its domain and split."""

    folder: str
    domain: str
    split: str


def find_splits(root: Path, names: Sequence[str] | None) -> SplitFolders | None:
    """The folders of ``root`` that are splits: those called one of ``names``. By default those
    called one of ``SPLITS``, in any case, where all folders of their level are called so.

    Returns:
        None if there are none by default.

    Raises:
        PackError: one of the ``names`` is missing, or classes lie at different depths.
    """
    top = folders(root)
    above = _named(top, names)
    places = _above(root, above) if above else _below(root, top, names)
    found = {place.split for place in places}
    if missing := [name for name in names or () if name not in found]:
        raise PackError(
            f"{root} has no folder {missing[0]} with class folders, neither at its top nor in each "
            "domain; see --splits"
        )
    if not places:
        return None
    order = {name: number for number, name in enumerate(names or SPLITS)}
    splits = sorted(found, key=lambda name: (order.get(name, order.get(name.lower())), name))
    domains = sorted({place.domain for place in places})
    groups = sorted(
        (
            Group(place.folder, domains.index(place.domain), splits.index(place.split))
            for place in places
        ),
        key=lambda group: (group.split, group.domain),
    )
    unused = [name for name in top if above and name not in found]
    return SplitFolders(groups, tuple(domains), tuple(splits), unused)


def _named(found: list[str], names: Sequence[str] | None) -> list[str]:
    """Those of the folders ``found`` in one place that are splits."""
    if names:
        return [name for name in found if name in names]
    return found if all(name.lower() in SPLITS for name in found) else []


def _above(root: Path, splits: list[str]) -> list[_Place]:
    """The places where the top folders are ``splits``; those without class folders are left out."""
    places: list[_Place] = []
    for split in splits:
        if images_folder(root, split):
            continue
        below = folders(root / split)
        if any(images_folder(root / split, name) for name in below):
            places.append(_Place(split, "default", split))
        else:
            places += [_Place(f"{split}/{name}", name, split) for name in below]
    with_domains = [place for place in places if place.folder != place.split]
    if with_domains and len(with_domains) < len(places):
        plain = next(place for place in places if place.folder == place.split)
        raise PackError(
            f"{root}: {plain.folder}/ holds classes but {with_domains[0].folder}/ is a folder of "
            "folders; expected <split>/<class>/<image> or <split>/<domain>/<class>/<image> "
            "throughout; move or remove the odd folders"
        )
    return places


def _below(root: Path, domains: list[str], names: Sequence[str] | None) -> list[_Place]:
    """The places where each of the top folders is a domain that has splits; else none."""
    places = []
    for domain in domains:
        of_domain = [
            _Place(f"{domain}/{split}", domain, split)
            for split in _named(folders(root / domain), names)
            if not images_folder(root / domain, split)
        ]
        if not of_domain:
            return []
        places += of_domain
    return places
