"""The result of the check: one table on standard output, and the same as JSON."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.node import Row, Value
from benchmarks.harness import markdown_row
from runtime.errors import ConfigError
from runtime.files import write_atomically

_COLUMNS = ("part", "what", "result", "verdict")
_VERDICTS = {None: "", True: "ok", False: "FAILED"}


class Report:
    """Collects rows, prints each as it comes, and keeps its JSON file up to date.

    Attributes:
        path: of the file.
        passed: whether no check and no part has failed so far.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.passed = True
        self.path = path
        self._parts: dict[str, dict[str, Any]] = {}
        self._content = {**header, "status": "running", "parts": self._parts}
        self._started = 0.0
        print(markdown_row(_COLUMNS))
        print(markdown_row(["---"] * len(_COLUMNS)), flush=True)

    def begin(self, part: str) -> None:
        """The rows that follow belong to ``part``."""
        self._started = time.monotonic()
        self._parts[part] = {"status": "running", "seconds": 0.0, "rows": []}

    def add(self, part: str, row: Row) -> None:
        """Print a row and write it to the file."""
        self._parts[part]["rows"].append(asdict(row))
        self.passed &= row.passed is not False
        self._line(part, row.what, _text(row.values), _VERDICTS[row.passed])
        self._save()

    def end(self, part: str) -> None:
        """The part has finished; it failed if one of its checks did."""
        failed = any(row["passed"] is False for row in self._parts[part]["rows"])
        self._close(part, "failed" if failed else "ok")

    def fail(self, part: str, line: str, details: str) -> None:
        """The part ended with an error: ``line`` for the table, ``details`` for the file."""
        self.passed = False
        self._parts[part] |= {"error": line, "details": details}
        self._line(part, "error", line, _VERDICTS[False])
        self._close(part, "error")

    def finish(self, status: str) -> None:
        """Write how the check ended: ``complete`` or ``interrupted``."""
        for part in self._parts.values():
            if part["status"] == "running":
                part["status"] = status
        self._content["status"] = status
        self._save()

    @property
    def num_finished(self) -> int:
        return sum(part["status"] in ("ok", "failed", "error") for part in self._parts.values())

    def _close(self, part: str, status: str) -> None:
        seconds = round(time.monotonic() - self._started, 2)
        self._parts[part] |= {"status": status, "seconds": seconds}
        self._save()

    def _line(self, *cells: str) -> None:
        print(markdown_row([cell.replace("|", "/") for cell in cells]), flush=True)

    def _save(self) -> None:
        try:
            write_atomically(self.path, json.dumps(self._content, indent=1).encode() + b"\n")
        except OSError as error:
            raise ConfigError(
                f"cannot write {self.path}: {error.strerror}; choose a different --out"
            ) from error


def _text(values: dict[str, Value]) -> str:
    return ", ".join(f"{name} {_number(name, value)}" for name, value in values.items())


def _number(name: str, value: Value) -> str:
    if isinstance(value, str | int):
        return f"{value:,}" if isinstance(value, int) else value
    if name.endswith("share") or name == "MFU":
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
