"""What all commands share: one parser, one way to report errors, one set of exit codes.

Imports nothing slow, so that help and argument errors appear at once.
"""

import argparse
import contextlib
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Literal, NoReturn

from runtime.errors import ConfigError, PeerError, TrainingError, UserError, first_line

DeviceName = Literal["auto", "cpu", "gpu"]

INTERRUPTED = 130  # the status that shells give a command that Ctrl-C ended
_SPIN_COUNT = "1000"  # of an OpenMP thread that waits, before it sleeps; libgomp's is 300,000
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Parser(argparse.ArgumentParser):
    """Reports a mistake in a command's arguments as a ``ConfigError``, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with ``message`` and the way to the command's help."""
        raise ConfigError(f"{' '.join(message.split())}; see {self.prog} --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default is not None and action.default is not False
        return super()._get_help_string(action) if has_default else action.help


def run_command(action: Callable[[], int]) -> int:
    """Run ``action`` and return the command's exit status.

    That is what ``action`` returns; 2 after a ``UserError`` or where standard output cannot be
    written, 1 after a ``TrainingError`` or a ``PeerError``, 130 after Ctrl-C, each with one line
    on standard error. Any other exception is a bug and passes through with its traceback.

    Where a launcher such as torchrun started several processes, one that fails prints its message
    and exits at once with that status: freeing the resources that it shares with the others could
    deadlock, since they may be waiting for it.
    """
    limit_spinning()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced or closed by the caller
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = action()
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        launched = _is_launched()
        if launched:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes twice: torchrun repeats it
        failure = _report(error)
        if failure is None:
            if not launched:
                raise
            traceback.print_exc()
            failure = 1
        if launched:
            _exit_now(failure)
        return failure


def limit_spinning() -> None:
    """Let OpenMP threads that wait for one another soon sleep, unless the environment says how they
    wait.

    By default they spin for so long that, where another process uses the cores too, they take the
    time that the thread they wait for needs. libgomp reads the environment when it is loaded, so
    call this before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def current_name(text: str, renamed: Mapping[str, str]) -> str:
    """``text``, or what it is called now, with a hint on standard error; the part after = stays."""
    old, equals, value = text.partition("=")
    if old not in renamed:
        return text
    if os.environ.get("RANK", "0") == "0":
        line = f"hint: {old} is now {renamed[old]}; the old name goes in the next release"
        print(line, file=sys.stderr)
    return renamed[old] + equals + value


def positive(text: str) -> int:
    """An argparse type: a whole number above 0."""
    return _whole_number(text, 1)


def natural(text: str) -> int:
    """An argparse type: a whole number from 0 up."""
    return _whole_number(text, 0)


def fraction(text: str) -> float:
    """An argparse type: 0 to 1, or 0% to 100%."""
    number = text.removesuffix("%")
    try:
        value = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"invalid fraction {text!r}; use e.g. 0.1% or 0.001")
    return value


def size(text: str) -> int:
    """An argparse type: a number of bytes with its unit, such as 512MB."""
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if text.endswith(unit) and number.replace(".", "", 1).isdecimal() and float(number) > 0:
            return max(1, int(float(number) * factor))
    raise argparse.ArgumentTypeError(f"invalid size {text!r}; use e.g. 512MB or 2GiB")


def _whole_number(text: str, smallest: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) >= smallest):
        raise argparse.ArgumentTypeError(
            f"invalid number {text!r}; use a whole number from {smallest} up"
        )
    return int(text)


def _report(error: BaseException) -> int | None:
    """Print the error in one line and return the exit status; None, and no line, for a bug."""
    if isinstance(error, UserError):
        return _print_error(str(error), 2)
    if isinstance(error, TrainingError | PeerError):
        return _print_error(str(error), 1)
    if isinstance(error, KeyboardInterrupt):
        return _print_error("interrupted; rerun the same command to resume", INTERRUPTED)
    if isinstance(error, OSError) and _output_is_broken():
        return _print_error(f"cannot write to standard output: {first_line(error)}", 2)
    return None


def _print_error(message: str, status: int) -> int:
    """Print an error in one line, which names the rank unless that is 0."""
    rank = os.environ.get("RANK", "0")
    line = "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in " ".join(message.split("\n"))
    )
    # one write, so that the lines of several processes are not interleaved
    sys.stderr.write(f"error: {line}\n" if rank == "0" else f"rank {rank}: {line}\n")
    sys.stderr.flush()
    return status


def _is_launched() -> bool:
    """Whether a launcher started this process, in most cases as one of several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several or "TORCHELASTIC_RUN_ID" in os.environ


def _exit_now(status: int) -> NoReturn:
    """End this process without any cleanup."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _output_is_broken() -> bool:
    """Whether standard output failed; if so, redirect it to the null device, so that the flush at
    exit does not fail too."""
    try:
        print(flush=True)  # a failed write may have left nothing to flush
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
