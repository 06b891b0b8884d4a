"""A process that has imported everything and runs each command in a fork of itself, in a moment.

``python server.py SOCKET light|heavy`` listens at a Unix socket; each connection sends a job and
receives the command's process id and then its outcome, a line of JSON each (see ``commands.py``).
The command has the arguments, environment, streams, folder, memory and exit status that it would
have if it were started by itself.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
LIGHT = ("numpy", "pyarrow.parquet", "PIL.Image", "rich.table", "sharding")
HEAVY = (
    "matplotlib.pyplot",
    "nvidia.dali.fn",
    "safetensors.torch",
    "scipy.stats",
    "sklearn.covariance",
    "timm",
    "torch.distributed.run",
    "torch.utils.tensorboard",
    "torchvision",
    "pipelines",
    "model",
    "runtime",
    "training",
    "evaluation",
    "train_ddp",
    "evaluate",
    "predict",
)
MEMORY = 2 << 30
_BROKEN = 255  # a status that no command has


def serve(address: str, names: Sequence[str]) -> None:
    """Import the modules, and all that the packages among them hold, then answer."""
    for name in names:
        package = importlib.import_module(name)
        if (ROOT / name).is_dir():
            for module in pkgutil.walk_packages(package.__path__, f"{name}."):
                importlib.import_module(module.name)
    if "pipelines" in names:
        _convert_graph()
    gc.freeze()  # a collection in a fork would copy every page
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as ready:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)  # who sees it can connect
        ready.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select(timeout=0.5):
                if key.fileobj is listener:
                    command = _Running(listener.accept()[0])
                    ready.register(command.ended, selectors.EVENT_READ, command)
                else:
                    ready.unregister(key.fileobj)
                    key.data.report()
            for key in list(ready.get_map().values()):
                if key.data is not None:
                    key.data.end_late()


def _convert_graph() -> None:
    """Let DALI convert the Python of the image graph, which takes a process longer than to run it.

    Nothing is built, so that no thread is started.
    """
    from model.config import Preprocessing
    from pipelines.graph import image_graph, types

    options = {"batch_size": 1, "num_threads": 1, "device_id": None}
    image_graph(lambda info: None, Preprocessing(), {"device": "cpu"}, types.FLOAT, **options)


class _Running:
    """A command in a fork, which begins when this is made.

    Attributes:
        ended: a file that is readable once it has ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._hung = connection, False
        job = json.loads(connection.makefile().readline())
        self._inherited = int(_status()["VmRSS"].split()[0])
        self._began = time.monotonic()
        self._deadline = self._began + job["timeout"]
        self._child = os.fork()
        if not self._child:
            _run(job)
        self._send({"pid": self._child})
        self.ended = os.fdopen(os.pidfd_open(self._child))

    def end_late(self) -> None:
        """Kill the command if its time is over."""
        if not self._hung and time.monotonic() > self._deadline:
            self._hung = True
            os.killpg(self._child, signal.SIGKILL)

    def report(self) -> None:
        """Send the outcome of the command, which has ended."""
        _, status, usage = os.wait4(self._child, 0)
        outcome = {
            "status": os.waitstatus_to_exitcode(status),
            "hung": self._hung,
            "seconds": time.monotonic() - self._began,
            "memory": (usage.ru_maxrss - self._inherited) * 1024,
        }
        self._send(outcome)
        self._connection.close()
        self.ended.close()

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # of a test that has failed
            self._connection.sendall(json.dumps(message).encode() + b"\n")


def _run(job: dict[str, Any]) -> NoReturn:
    """Run ``main`` of the module ``job["module"]`` as the program of this process."""
    status = _BROKEN
    try:
        os.setsid()
        _limit_memory()
        _open_streams(job)
        os.environ.update(job["environment"])
        os.chdir(job["folder"])
        if job["file_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"], resource.RLIM_INFINITY))
        util.spawnv_passfds = _spawn  # type: ignore[assignment]
        status = _main(job["module"], job["arguments"])
    finally:
        os._exit(status)


def _main(name: str, arguments: list[str]) -> int:
    sys.argv = [name, *arguments]
    module = sys.modules["__main__"] = importlib.import_module(name)
    try:
        status = module.main(arguments)
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    return _finalize(status)


def _limit_memory() -> None:
    limit = int(_status()["VmData"].split()[0]) * 1024 + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _status() -> dict[str, str]:
    """What the kernel says of this process, sizes in kB."""
    return dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())


def _open_streams(job: dict[str, Any]) -> None:
    writing = os.O_WRONLY | os.O_CREAT
    streams = (("/dev/null", os.O_RDONLY), (job["stdout"], writing), (job["stderr"], writing))
    for descriptor, (path, flags) in enumerate(streams):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    encoding = job["encoding"]
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding=encoding)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding, "backslashreplace", write_through=True
    )


def _spawn(_path: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Start a helper process of multiprocessing, ``python -c SOURCE``, by a fork."""
    child = os.fork()
    if child:
        return child
    try:
        gc.freeze()  # so that no object of the parent's closes a descriptor that is ours
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor > 2 and descriptor not in descriptors:
                with contextlib.suppress(OSError):  # the one that lists them
                    os.close(descriptor)
        exec(arguments[-1], {})
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def _finalize(status: object) -> int:
    """Do what the interpreter does at its end; returns the exit status."""
    if status is None:
        status = 0
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    try:
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored while standard output is flushed: {error}", file=sys.stderr)
        status = 120
    return status & 0xFF


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    serve(sys.argv[1], LIGHT + HEAVY if sys.argv[2] == "heavy" else LIGHT)
