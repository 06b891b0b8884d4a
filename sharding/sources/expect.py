"""Checks that the tree of a published data set is complete, and reports what is missing."""

from collections.abc import Sequence
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.tree import folders


def inside(root: Path, *candidates: str) -> Path:
    """The first of ``candidates`` below ``root`` that is a folder, else ``root`` itself."""
    return next((root / name for name in candidates if (root / name).is_dir()), root)


def expect_folders(root: Path, expected: Sequence[str]) -> None:
    """Raise PackError unless ``root`` holds the ``expected`` folders."""
    found = folders(root)
    if missing := [name for name in expected if name not in set(found)]:
        raise wrong_tree(root, f"the {len(expected)} folders {some(expected)}", found, missing)


def wrong_tree(
    root: Path, expected: str, found: Sequence[str], missing: Sequence[str] = ()
) -> PackError:
    """The error for a folder ``root`` that holds ``found`` instead of what was ``expected``."""
    lacks = f" (missing: {some(missing)})" if missing else ""
    return PackError(
        f"{root}: expected {expected}, found {len(found)}: {some(found)}{lacks}; "
        "complete the tree, or pack what there is with `pack imagefolder`"
    )


def some(names: Sequence[str]) -> str:
    """The first few of ``names``, for a message."""
    return (", ".join(names[:8]) + (", …" if len(names) > 8 else "")) or "none"
