"""SHA-256 of the files in a folder, kept next to them: detects bit rot and truncation.

``checksums.json`` maps each file's name to its size in bytes and its sha256. It does not protect
against someone who can write to the folder, and so replace the checksums as well.
"""

import json
import os
from pathlib import Path
from typing import Any

from runtime.errors import CheckpointError, first_line
from runtime.files import file_sha256, open_regular, write_atomically
from runtime.untrusted import read_text

CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Record size and sha256 of all files in ``folder``."""
    record = {path.name: _entry(path) for path in sorted(folder.iterdir())}
    _write_record(folder / CHECKSUMS, record)


def update_checksum(folder: Path, name: str) -> None:
    """Record size and sha256 of one file; the other entries stay as they are."""
    record = _read_record(folder / CHECKSUMS) or {}
    record[name] = _entry(folder / name)
    _write_record(folder / CHECKSUMS, record)


def is_recorded(folder: Path, name: str) -> bool:
    """Whether the checksum of a file is recorded; CheckpointError if the record cannot be read."""
    return name in (_read_record(folder / CHECKSUMS) or {})


def verify_checksums(folder: Path, names: tuple[str, ...]) -> bool:
    """Compare files of ``folder`` with their recorded checksums.

    Returns:
        False where nothing was recorded, as in checkpoints of older versions.

    Raises:
        CheckpointError: a file is missing or differs, or the record cannot be read.
    """
    record = _read_record(folder / CHECKSUMS)
    if record is None:
        return False
    for name in names:
        path, entry = folder / name, record.get(name)
        if not isinstance(entry, dict):
            raise CheckpointError(f"{folder / CHECKSUMS} does not list {name}")
        try:
            with open_regular(path) as file:
                # The size first: a file that has grown, to whatever length, is never read.
                if os.fstat(file.fileno()).st_size != entry.get("bytes"):
                    raise ValueError(f"its size is not the one in {CHECKSUMS}")
                if file_sha256(file) != entry.get("sha256"):
                    raise ValueError(f"its sha256 is not the one in {CHECKSUMS}")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error
    return True


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": file_sha256(file)}


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(read_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"cannot read {path}: it does not hold a mapping")
    return record


def _write_record(path: Path, record: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
