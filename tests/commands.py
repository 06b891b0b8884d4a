"""Commands run as processes of their own, each started in a fraction of a second."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

SERVER = Path(__file__).with_name("server.py")
ENVIRONMENT = {"COLUMNS": "120"}
TIMEOUT_SECONDS = 60
MEMORY = 2 << 30
PROCESSES = len(os.sched_getaffinity(0))
NOTICES = re.compile(  # lines that may come before the one that says why a command ended
    r"sample .* is damaged and is replaced"
    r"|libpng (error|warning): .*"  # of the decoders, which write where they like
    r"|\x1b\[0;31m\[ERROR\] \x1b\[0m\[\w+_(decoder|parser)\] .*"
)


@dataclass(frozen=True)
class Command:
    """``python -m MODULE ARGUMENTS``, run in ``folder``.

    Attributes:
        name: what it is called in an expectation.
        encoding: of standard output, which may not know every character.
        stdout: where standard output goes; by default it is collected.
        file_bytes: no file that it writes can grow beyond, as on a full disk.
        environment: what it has besides the runner's.
        timeout: seconds after which it hangs and is killed.
    """

    name: str
    module: str
    arguments: Sequence[str | Path]
    folder: Path
    encoding: str = "utf-8"
    stdout: Path | None = None
    file_bytes: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = TIMEOUT_SECONDS


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``memory`` is the most that it took, in bytes."""

    command: Command
    status: int
    stdout: str
    stderr: str
    hung: bool
    memory: int
    seconds: float

    def failures(self, statuses: Collection[int]) -> list[str]:
        """How it broke what every command promises, or that it exited with none of ``statuses``."""
        found = self.breaches()
        if self.status not in statuses and not found:
            last = (self.stderr or self.stdout).strip()[-150:]
            found.append(f"exit {self.status} instead of {sorted(statuses)}: {last!r}")
        return found

    def breaches(self) -> list[str]:
        """How it broke what every command promises, whatever the command reads."""
        found = []
        lines = [line for line in self.stderr.splitlines() if not NOTICES.fullmatch(line)]
        if self.hung:
            found.append(f"hangs for {self.command.timeout} s")
        if "Traceback (most recent call last)" in self.stderr:
            found.append(f"traceback, {self.stderr.strip().splitlines()[-1][:150]}")
        elif not self.hung and self.status not in (0, 1, 2):
            found.append(f"exit {self.status}, {self.stderr.strip()[-150:]!r}")
        elif self.status == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
            found.append(f"not one error line, {lines[:3]}")
        if self.memory > MEMORY:
            found.append(f"takes {self.memory / 2**30:.1f} GiB")
        if "\x1b" in "".join((self.stdout, *lines)):
            found.append("prints an escape sequence")
        return found


class Running:
    """A command that has begun.

    Attributes:
        pid: its process id, which is that of its process group.
    """

    def __init__(self, command: Command, connection: socket.socket, streams: list[Path]) -> None:
        self._command, self._connection, self._streams = command, connection, streams
        self._answers = connection.makefile()
        self.pid: int = json.loads(self._answers.readline())["pid"]

    @property
    def has_ended(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def kill(self) -> None:
        """Kill it and all that it has started, unless it has ended."""
        if self._connection.fileno() >= 0 and not self.has_ended:
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> Outcome:
        """Its outcome, once it has ended."""
        with self._connection, self._answers:
            outcome = json.loads(self._answers.readline())
        stdout, stderr = self._streams
        return Outcome(
            self._command,
            stdout="" if self._command.stdout else _text(stdout),  # /dev/full has no end
            stderr=_text(stderr),
            **outcome,
        )


class Runner:
    """Runs commands in servers that have imported what they import."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()

    def run(self, *commands: Command) -> list[Outcome]:
        """Run the ``commands``, as many at a time as there are cores."""
        with ThreadPoolExecutor(PROCESSES) as pool:
            return list(pool.map(lambda command: self.start(command).wait(), commands))

    def start(self, command: Command) -> Running:
        number = next(self._numbers)
        stdout = command.stdout or self._folder / f"{number}.out"
        stderr = self._folder / f"{number}.err"
        job = {
            "module": command.module,
            "arguments": [os.fspath(argument) for argument in command.arguments],
            "folder": str(command.folder),
            "encoding": command.encoding,
            "stdout": str(stdout),
            "stderr": str(stderr),
            "file_bytes": command.file_bytes,
            "environment": dict(command.environment),
            "timeout": command.timeout,
        }
        kind = "light" if command.module.startswith("sharding") else "heavy"
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._folder / kind))
        connection.sendall(json.dumps(job).encode() + b"\n")
        return Running(command, connection, [stdout, stderr])


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Runner]:
    """A runner whose commands see ``environment`` besides that of this process."""
    with ExitStack() as stack:
        for kind in ("light", "heavy"):
            stack.enter_context(_server(folder / kind, {**os.environ, **environment}))
        yield Runner(folder)


@contextmanager
def _server(address: Path, environment: Mapping[str, str]) -> Iterator[None]:
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(address), address.name],
        env=environment,
        cwd=address.parent,
    )
    try:
        while not address.exists():
            if server.poll() is not None:
                raise RuntimeError("the server of the commands has ended")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "backslashreplace")
