"""Servers of packs on the loopback interface: rclone's, which tests start, kill and restart."""

import ctypes
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

KEY, SECRET = "AKIATESTKEYOFOURS", "secret/of+the/tests"
USER, PASSWORD = "reader", "password-of-the-reader"
_PR_SET_PDEATHSIG = 1
_RCLONE = Path(sysconfig.get_path("scripts")) / "rclone"


class Server:
    """``rclone serve`` of a kind on a port that stays the same when it is started again.

    It remembers what it has found in a folder; ``restart`` makes it look again.
    """

    def __init__(self, kind, root):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        access = {
            "s3": ["--auth-key", f"{KEY},{SECRET}"],
            "http": ["--user", USER, "--pass", PASSWORD],
        }
        self._words = [
            *(str(_RCLONE), "serve", kind, str(root), "--addr", self.address, *access[kind]),
            *("--config", "", "--log-level", "ERROR"),
        ]
        self._process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        self._process = subprocess.Popen(
            self._words, stderr=subprocess.DEVNULL, preexec_fn=_end_with_parent
        )
        opener = build_opener(ProxyHandler({}))
        while True:
            assert self._process.poll() is None, "rclone ended"
            try:
                opener.open(f"http://{self.address}/").close()
            except HTTPError:  # it answers, if only to refuse
                return
            except URLError:
                time.sleep(0.02)
            else:
                return

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self):
        self.kill()
        self.start()


def _end_with_parent():
    """A server does not outlive tests that are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def environment_of(server):
    """What makes S3 drivers use ``server``; a call that fails is not repeated for long."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://{server.address}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def run_sharding(*words, **options):
    """``python -m sharding`` as a process."""
    command = [sys.executable, "-m", "sharding", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)
