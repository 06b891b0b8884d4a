"""Something else in the place of a file: missing, special, or far too large."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from pack_files import make_sparse

SECRET = "what lies outside of the pack"


def neighbor(path: Path) -> Path:
    """A file outside of the folder that is altered, whose content must not spread."""
    return next(parent for parent in path.parents if (parent / "neighbor").exists()) / "neighbor"


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # the address may not be long
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_link_to_the_same_outside(path: Path) -> None:
    moved = neighbor(path) / path.name
    shutil.move(path, moved)
    path.symlink_to(moved)


def a_link_to_a_secret(path: Path) -> None:
    path.unlink()
    path.symlink_to(neighbor(path) / "secret")


def a_link_to_dev_zero(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def nine_gigabytes(path: Path) -> None:
    make_sparse(path)


KINDS: tuple[Callable[[Path], None], ...] = (
    missing,
    empty,
    garbage,
    cut_short,
    a_fifo,
    a_socket,
    a_folder,
    a_link_to_nothing,
    a_link_to_itself,
    a_link_to_the_same_outside,
    a_link_to_a_secret,
    a_link_to_dev_zero,
    nine_gigabytes,
)
