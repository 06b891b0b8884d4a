"""The folder of results, which appears complete or not at all."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkResult
from evaluation.comparison import Comparison
from evaluation.receipt import Receipt
from evaluation.report import comparisons as compared
from evaluation.report import files
from evaluation.report.figures import Figures, most_telling_first, write_figures
from evaluation.report.page import write_report
from runtime.errors import ConfigError, first_line
from runtime.files import sync

_LOCK = ".lock"
_FILES = (
    "results.csv",
    "comparisons.csv",
    "results.md",
    "scores.parquet",
    "report.html",
    "results.json",
)
_FIGURES = "figures"


class ResultsFolder:
    """A place reserved for results: a hidden folder next to ``out`` that is renamed at the end.

    Args:
        out: where the results will be.
        work: the hidden folder.
    """

    def __init__(self, out: Path, work: Path) -> None:
        self._out, self._work = out, work

    def write(
        self,
        benchmarks: Sequence[BenchmarkResult],
        comparisons: Sequence[Comparison],
        receipt: Receipt,
    ) -> None:
        """Write all files, then rename the folder; results that were there are replaced.

        Raises:
            ConfigError: they cannot be written; earlier results stay.
        """
        with _reporting(self._out):
            files.write_csv(self._work / "results.csv", benchmarks)
            compared.write_csv(self._work / "comparisons.csv", comparisons)
            files.write_markdown(self._work / "results.md", benchmarks, comparisons)
            files.write_scores(self._work / "scores.parquet", benchmarks)
            ranked = [most_telling_first(benchmark) for benchmark in benchmarks]
            figures = Figures.draw(ranked)
            write_figures(self._work / _FIGURES, ranked, figures)
            write_report(self._work / "report.html", ranked, comparisons, receipt, figures)
            files.write_json(self._work / "results.json", benchmarks, comparisons, receipt)
            for path in (*self._work.rglob("*"), self._work):
                sync(path)
            previous = _previous(self._out)
            if self._out.exists():
                self._out.rename(previous)
            self._work.rename(self._out)
            (self._out / _LOCK).unlink()
            shutil.rmtree(previous, ignore_errors=True)


@contextlib.contextmanager
def reserve(out: Path, overwrite: bool) -> Iterator[ResultsFolder]:
    """Reserve ``out`` for results; if none are written inside the block, nothing is left behind.

    Raises:
        ConfigError: ``out`` holds results and ``overwrite`` is not set, it holds other files,
            another evaluation is writing to it, or it cannot be written.
    """
    target = Path(os.path.realpath(out))
    if not target.name:
        raise ConfigError(f"{out} cannot be a folder of results; choose another --out")
    work = target.with_name(f".{target.name}.partial")
    with contextlib.ExitStack() as stack:
        with _reporting(out):
            stack.callback(_remove_empty, _make(target.parent))
            lock = _lock(work)
            stack.callback(_release, lock, work)
            _recover(target)
            _check(target, overwrite)
        yield ResultsFolder(target, work)


@contextlib.contextmanager
def _reporting(out: Path) -> Iterator[None]:
    """Turn any OSError inside into a ConfigError."""
    try:
        yield
    except BlockingIOError as error:
        raise ConfigError(
            f"another evaluation is writing to {out}; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot write the results to {out}: {first_line(error)}; choose another --out"
        ) from error


def _make(folder: Path) -> list[Path]:
    """Create a folder; returns the folders that had to be created, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # one that is not empty ends it
        for folder in folders:
            folder.rmdir()


def _lock(work: Path) -> int:
    """Create ``work`` empty and lock it; BlockingIOError where another process has the lock."""
    while True:
        work.mkdir(exist_ok=True)
        try:
            lock = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        except FileNotFoundError:  # the other process has just finished
            continue
        try:
            _take(lock)
            if _is_file(lock, work / _LOCK):
                for path in work.iterdir():  # of a killed evaluation
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.name != _LOCK:
                        path.unlink()
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _release(lock: int, work: Path) -> None:
    if _is_file(lock, work / _LOCK):  # otherwise it has been renamed to the results
        shutil.rmtree(work, ignore_errors=True)
    os.close(lock)


def _take(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks, as some clusters mount theirs
        pass


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the file that is open; not after a rename."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _recover(target: Path) -> None:
    """Restore earlier results if a process was killed between the two renames of ``write``."""
    previous = _previous(target)
    if previous.exists():
        if target.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(target)


def _check(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"{target} is not a folder; choose another --out")
    names = {path.name for path in target.iterdir()}
    ours = {*_FILES, _LOCK} | ({_FIGURES} if _has_figures(target) else set())
    if foreign := sorted(names - ours):
        raise ConfigError(
            f"{target} holds files other than results, such as {foreign[0]}; choose another --out"
        )
    if names and not overwrite:
        raise ConfigError(f"{target} holds results; choose another --out, or give --overwrite")


def _has_figures(target: Path) -> bool:
    """Whether its folder of figures belongs to results."""
    figures, complete = target / _FIGURES, (target / "results.json").exists()
    return complete and figures.is_dir() and all(p.suffix == ".svg" for p in figures.iterdir())


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")
