"""Rates of packing, from a tree and from an existing WebDataset, compared with tar, a bare decode
loop and webdataset's writer, in one run.

    python -m benchmarks.sharding --images FOLDER_OF_JPEGS [--copies 200] [--work /dev/shm]

The JPEGs are copied as often as asked into a tree of 8 classes below `--work`; give a folder in
memory to measure the program and not the disk. Each figure is the best of `--repeats`. The
memory of listing 10,000 and 1,000,000 names is measured too. A tar of tars is compared with
the same images unpacked, in turns and without decoding, so that reading counts.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.harness import peak_memory
from sharding.executors import run_local
from sharding.images import ImageOptions
from sharding.listing import write_listing
from sharding.packing import pack
from sharding.shard_plan import PackOptions
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.imagefolder import imagefolder
from sharding.sources.imagenet.forms import imagenet21k
from sharding.sources.webdataset import WebDatasetOptions, webdataset

_CLASSES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEGs")
    parser.add_argument("--copies", type=int, default=200, help="of each image")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"), help="where to write")
    parser.add_argument("--repeats", type=int, default=2, help="best of so many")
    parser.add_argument("--listing", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.listing:
        print(_listing_memory(arguments.listing))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        files = _copy(sorted(arguments.images.iterdir()), arguments.copies, work / "tree")
        _print_rates(work, files, arguments.repeats)
    for count in (10_000, 1_000_000):
        command = [sys.executable, "-m", "benchmarks.sharding", "--images", "-", "--listing"]
        peak = subprocess.run([*command, str(count)], capture_output=True, text=True, check=True)
        print(f"listing {count:>9,} names: {float(peak.stdout):6.1f} MB resident")


def _print_rates(work: Path, files: list[Path], repeats: int) -> None:
    def rate(name: str, run: Callable[[], object]) -> float:
        best = 0.0
        for _ in range(repeats):
            shutil.rmtree(work / "out", ignore_errors=True)
            started = time.perf_counter()
            run()
            best = max(best, len(files) / (time.perf_counter() - started))
        print(f"{name:34s} {best:9.0f} images/s", flush=True)
        return best

    def packed(workers: int, decode: bool = True, dataset: Dataset | None = None) -> object:
        options = PackOptions(16 * 10**6, image=ImageOptions(decode_check=decode))
        dataset = dataset or imagefolder(work / "tree")
        return pack(dataset, work / "out", options, partial(run_local, workers=workers))

    def repacked() -> object:
        return packed(2, dataset=webdataset(work / "shards", WebDatasetOptions()))

    print(f"{len(files):,} JPEGs, {sum(file.stat().st_size for file in files) / 1e6:,.0f} MB")
    unpacked, in_tars = _print_tar_of_tars(work, len(files), repeats)
    tar_rate = rate("tar cf", lambda: _tar(work))
    copied = rate("pack --no-decode-check, 2 workers", lambda: packed(2, decode=False))
    bare = rate("bare decode, 2 processes", lambda: _decode_all(files, 2))
    writer = rate("webdataset.ShardWriter and decode", lambda: _webdataset(work, files))
    (work / "out").rename(work / "shards")
    taken_over = rate("pack webdataset, 2 workers", repacked)
    one = rate("pack, 1 worker", lambda: packed(1))
    two = rate("pack, 2 workers", lambda: packed(2))
    print(f"time of packing undecoded / time of tar    {tar_rate / copied:5.2f}  (at most 1.3)")
    print(f"pack / bare decode, 2 processes            {two / bare:5.2f}  (at least 0.85)")
    print(f"pack webdataset / bare decode, 2 processes {taken_over / bare:5.2f}  (at least 0.85)")
    print(f"2 workers / 1 worker                       {two / one:5.2f}  (at least 1.8)")
    print(f"pack, 2 workers / ShardWriter loop         {two / writer:5.2f}  (at least 1.8)")
    print(f"tar of tars / unpacked tree, undecoded     {in_tars / unpacked:5.2f}  (at least 0.9)")


def _print_tar_of_tars(work: Path, images: int, repeats: int) -> tuple[float, float]:
    """Images/s of packing the tree, and of packing a tar of a tar for each of its classes."""
    roots = {name: work / name for name in ("unpacked tree", "tar of tars")}
    for root in roots.values():
        root.mkdir()
    synsets = []
    for number, folder in enumerate(sorted((work / "tree").iterdir())):
        synsets.append(f"n{number:08d}")
        (roots["unpacked tree"] / synsets[-1]).symlink_to(folder)
        inner = roots["tar of tars"] / f"{synsets[-1]}.tar"
        subprocess.run(["tar", "cf", inner, "-C", folder, "."], check=True)
    tars = [f"{synset}.tar" for synset in synsets]
    command = ["tar", "cf", "fall11_whole.tar", "--remove-files", *tars]
    subprocess.run(command, cwd=roots["tar of tars"], check=True)
    options = PackOptions(16 * 10**6, image=ImageOptions(decode_check=False))
    best = dict.fromkeys(roots, 0.0)
    for _ in range(repeats):
        for name, root in roots.items():
            shutil.rmtree(work / "out", ignore_errors=True)
            started = time.perf_counter()
            pack(imagenet21k(root), work / "out", options, partial(run_local, workers=2))
            best[name] = max(best[name], images / (time.perf_counter() - started))
    for name, root in roots.items():
        print(f"pack --no-decode-check, {name:13s} {best[name]:9.0f} images/s", flush=True)
        shutil.rmtree(root)
    return best["unpacked tree"], best["tar of tars"]


def _copy(images: list[Path], copies: int, tree: Path) -> list[Path]:
    files = []
    for number in range(copies):
        folder = tree / f"class{number % _CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        for image in images:
            files.append(folder / f"{number:04d}_{image.name}")
            shutil.copyfile(image, files[-1])
    return files


def _tar(work: Path) -> None:
    (work / "out").mkdir()
    subprocess.run(["tar", "cf", work / "out" / "all.tar", "-C", work, "tree"], check=True)


def _decode_all(files: list[Path], processes: int) -> None:
    with ProcessPoolExecutor(processes) as pool:
        for _ in pool.map(_decode, files, chunksize=64):
            pass


def _decode(file: Path) -> None:
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        image.load()


def _webdataset(work: Path, files: list[Path]) -> None:
    import webdataset  # here, for the memory of listing is measured without it

    (work / "out").mkdir()
    pattern = str(work / "out" / "%06d.tar")
    with webdataset.ShardWriter(pattern, maxsize=16 * 10**6, verbose=0) as writer:
        for number, file in enumerate(files):
            content = file.read_bytes()
            Image.open(io.BytesIO(content)).load()
            writer.write({"__key__": f"{number:09d}", "jpg": content, "cls": 0})


def _listing_memory(count: int) -> float:
    """Peak resident memory, MB, of a process that lists ``count`` names and packs nothing."""

    def samples() -> Iterator[Sample]:
        for number in range(count):
            yield Sample(
                f"n{number % 1000:08d}/n{number:08d}_{number}.JPEG", 110_000, number % 1000
            )

    classes = tuple(f"n{number:08d}" for number in range(1000))
    dataset = Dataset("names", classes, ("default",), ("all",), samples, Path.read_bytes, True)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        listing = write_listing(dataset, PackOptions(), Path(folder) / "listing")
        listing.sample(int(listing.shard(0)[0]))
    return peak_memory()


if __name__ == "__main__":
    main()
