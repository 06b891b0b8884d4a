"""How fast images reach the training step, side by side with other ways of loading them.

    python -m benchmarks.input_pipeline --images FOLDER_OF_JPEGS [--rounds 3] [--threads 2]

Each way runs in a process of its own, the ways in turn, several rounds; the table shows medians.
All decode the same images (each found file copied until there are --count) from a warm cache with
the same number of threads or workers, crop, resize to 224, jitter and normalise as the paper does
unless said otherwise, and deliver torch tensors in batches of 128 images. A second table has the
sums over 1, 2 and 4 processes at once.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np

from benchmarks.harness import peak_memory

BATCH = 128
SIZE = 224
WARM_UP = 3


def ours(work: Path, threads: int, pack: str = "pack") -> Iterator[int]:
    """Pairs of the plan through `pipelines`."""
    from pipelines.config import AugmentConfig, InputConfig
    from pipelines.loader import PairLoader
    from pipelines.pack import Pack
    from pipelines.plan import PairPlan
    from pipelines.selection import Selection

    opened = Pack(work / pack)
    rows = Selection().rows(opened)
    plan = PairPlan(opened.index.label[rows], seed=0)
    config = InputConfig(image_size=SIZE, num_threads=threads)
    loader = PairLoader(opened, rows, plan, AugmentConfig(), config, global_batch=BATCH // 2)
    for batch in loader:
        yield len(batch.images)


def ours_resized(work: Path, threads: int) -> Iterator[int]:
    """The same from a pack made with `--resize-short 256`."""
    return ours(work, threads, "pack256")


def ours_of_imagenets_size(work: Path, threads: int) -> Iterator[int]:
    """The same with 1,281,167 rows in the index, of 1,000 classes."""
    return ours(work, threads, "packlarge")


def _from_memory(work: Path, threads: int, build: Callable) -> Iterator[int]:
    from nvidia.dali import pipeline_def

    from pipelines.augmentation import draw_augmentation
    from pipelines.config import AugmentConfig
    from pipelines.graph import graph_inputs
    from pipelines.hashing import stream
    from pipelines.pack import Pack

    pack = Pack(work / "pack")
    device = _device()

    def source(info) -> tuple:
        rows = (np.arange(BATCH) * 7919 + info.iteration * BATCH) % len(pack.index)
        key = stream(0, rows, np.array(info.iteration))
        augmentation = draw_augmentation(
            AugmentConfig(), key, pack.index.width[rows], pack.index.height[rows]
        )
        return graph_inputs(pack.read(rows), augmentation)

    pipeline = pipeline_def(build)(
        source,
        "mixed" if device == "gpu" else "cpu",
        batch_size=BATCH,
        num_threads=threads,
        device_id=0 if device == "gpu" else None,
        exec_dynamic=True,
    )
    pipeline.build()
    while True:
        (output,) = pipeline.run()
        yield len(output)


def _fed(source: Callable, decoder: str) -> tuple:
    from nvidia.dali import fn, types

    encoded, start, end, *numbers = fn.external_source(
        source=source, num_outputs=9, batch=True, batch_info=True, no_copy=True
    )
    region = [fn.cast(corner, dtype=types.FLOAT) for corner in (start, end)]
    images = fn.decoders.image(
        encoded, device=decoder, output_type=types.RGB, adjust_orientation=False
    )
    return images, (*region, *numbers)


def decode_only(work: Path, threads: int) -> Iterator[int]:
    """DALI decoding, from memory: the bound."""
    return _from_memory(work, threads, lambda source, decoder: _fed(source, decoder)[0])


def decode_and_resize(work: Path, threads: int) -> Iterator[int]:
    """DALI decoding and resizing the crop, from memory."""
    from nvidia.dali import fn

    def build(source: Callable, decoder: str):
        images, (start, end, *_) = _fed(source, decoder)
        return fn.resize(images, size=[SIZE, SIZE], roi_start=start, roi_end=end)

    return _from_memory(work, threads, build)


def bare_graph(work: Path, threads: int) -> Iterator[int]:
    """DALI decode, resize, `color_twist` of each image, normalise, from memory; contrast at 128."""
    from nvidia.dali import fn, types

    from pipelines.graph import MEAN, STD

    def build(source: Callable, decoder: str):
        images, numbers = _fed(source, decoder)
        start, end, flip, _, brightness, contrast, saturation, hue = numbers
        images = fn.resize(images, size=[SIZE, SIZE], roi_start=start, roi_end=end)
        images = fn.color_twist(
            images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )
        return fn.crop_mirror_normalize(
            images, dtype=types.FLOAT, output_layout="HWC", mirror=flip, mean=MEAN, std=STD
        )

    return _from_memory(work, threads, build)


def dali_reader(work: Path, threads: int) -> Iterator[int]:
    """DALI's own sequential WebDataset reader with its own random crops and colours; no pairs."""
    from nvidia.dali import fn, pipeline_def, types

    from pipelines.graph import MEAN, STD

    device = _device()
    shards = sorted(str(path) for path in (work / "pack").glob("*.tar"))

    @pipeline_def(
        batch_size=BATCH, num_threads=threads, device_id=0 if device == "gpu" else None, seed=0
    )
    def graph():
        encoded = fn.readers.webdataset(
            paths=shards,
            index_paths=[shard.removesuffix("tar") + "idx" for shard in shards],
            ext=["jpg"],
            name="reader",
            random_shuffle=True,
            initial_fill=1000,
        )
        images = fn.decoders.image(encoded, device="mixed" if device == "gpu" else "cpu")
        images = fn.random_resized_crop(images, size=SIZE, random_area=[0.8, 1.0])
        jitter = fn.random.coin_flip(probability=0.5, dtype=types.INT32)

        def factor():
            return 1.0 + jitter * fn.random.uniform(range=[-0.8, 0.8])

        images = fn.color_twist(
            images,
            brightness=factor(),
            contrast=factor(),
            saturation=factor(),
            hue=jitter * fn.random.uniform(range=[-36.0, 36.0]),
        )
        return fn.crop_mirror_normalize(
            images,
            output_layout="HWC",
            mirror=fn.random.coin_flip(dtype=types.INT32),
            mean=MEAN,
            std=STD,
        )

    pipeline = graph()
    pipeline.build()
    while True:
        (output,) = pipeline.run()
        yield len(output)


def _paper_transform() -> Callable:
    from benchmarks.original import augmenting_transform
    from pipelines.config import AugmentConfig

    return augmenting_transform(AugmentConfig(), SIZE)


def original_way(work: Path, threads: int) -> Iterator[int]:
    """Pillow and torchvision in a DataLoader's worker processes, one file per image."""
    import torch

    from benchmarks.original import PairImages

    files = sorted((work / "tree").rglob("*.jpg"))

    def read(number: int) -> tuple[bytes, bytes, bool]:
        anchor, partner = (files[number * step % len(files)] for step in (7919, 104729))
        return anchor.read_bytes(), partner.read_bytes(), True

    pairs = PairImages(read, 10**9, _paper_transform())
    loader: Any = torch.utils.data.DataLoader(pairs, batch_size=BATCH // 2, num_workers=threads)
    for anchors, partners, _ in loader:
        yield len(anchors) + len(partners)


def webdataset_way(work: Path, threads: int) -> Iterator[int]:
    """WebDataset reading the pack's shards, with torchvision in a DataLoader's workers."""
    import torch
    import webdataset
    from PIL import Image

    transform = _paper_transform()
    shards = sorted(str(path) for path in (work / "pack").glob("*.tar"))
    dataset = (
        webdataset.WebDataset(shards * 1000, shardshuffle=False, empty_check=False)
        .shuffle(1000)
        .to_tuple("jpg")
        .map_tuple(lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB")))
        .batched(BATCH)
    )
    for (images,) in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=threads):
        yield len(images)


def streaming_way(work: Path, threads: int) -> Iterator[int]:
    """MosaicML StreamingDataset with torchvision, where `mosaicml-streaming` is installed."""
    import torch
    from PIL import Image
    from streaming import MDSWriter, StreamingDataset

    out = work / "mds"
    if not out.exists():
        with MDSWriter(out=str(out), columns={"jpg": "bytes"}) as writer:
            for path in sorted((work / "tree").rglob("*.jpg")):
                writer.write({"jpg": path.read_bytes()})
    transform = _paper_transform()

    class Images(StreamingDataset):
        def __getitem__(self, number):
            return transform(Image.open(io.BytesIO(super().__getitem__(number)["jpg"])))

    while True:
        dataset = Images(local=str(out), shuffle=True, batch_size=BATCH)
        loader: Any = torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=threads)
        yield from map(len, loader)


def _read_jpeg(path: str) -> dict[str, bytes]:
    return {"jpg": Path(path).read_bytes()}


class _DecodeJpeg:
    """What `_read_jpeg` gave, decoded and transformed."""

    def __init__(self) -> None:
        self.transform = _paper_transform()

    def __call__(self, sample: dict[str, bytes]):
        from PIL import Image

        return self.transform(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))


def litdata_way(work: Path, threads: int) -> Iterator[int]:
    """litdata's StreamingDataset with torchvision, where `litdata` is installed."""
    import litdata

    out = work / "litdata"
    if not out.exists():
        files = sorted(str(path) for path in (work / "tree").rglob("*.jpg"))
        litdata.optimize(
            fn=_read_jpeg,
            inputs=files, output_dir=str(out), chunk_bytes="64MB", num_workers=1,
        )  # fmt: skip
    while True:
        dataset = litdata.StreamingDataset(str(out), shuffle=True, transform=_DecodeJpeg())
        loader = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=threads)
        yield from map(len, loader)


WAYS: dict[str, Callable[[Path, int], Iterator[int]]] = {
    "ours": ours,
    "ours, packed to 256": ours_resized,
    "ours, 1,281,167 rows": ours_of_imagenets_size,
    "DALI decode only": decode_only,
    "DALI decode + resize": decode_and_resize,
    "DALI bare graph": bare_graph,
    "DALI WebDataset reader": dali_reader,
    "original (Pillow)": original_way,
    "WebDataset + Pillow": webdataset_way,
    "StreamingDataset + Pillow": streaming_way,
    "litdata + Pillow": litdata_way,
}


def measure(way: str, work: Path, threads: int, images: int) -> dict[str, float]:
    """Run one way in this process: images/s, CPU seconds per 1,000 images, peak memory in MB."""
    started = time.perf_counter()
    batches = WAYS[way](work, threads)
    next(batches)
    first = time.perf_counter() - started
    for _ in range(WARM_UP):
        next(batches)
    cpu, start, count = _cpu_seconds(), time.perf_counter(), 0
    while count < images:
        count += next(batches)
    seconds = time.perf_counter() - start
    cpu = _cpu_seconds() - cpu
    return {
        "images/s": count / seconds,
        "cpu": cpu / count * 1000,
        "memory": peak_memory(),
        "first": first,
    }


def _cpu_seconds() -> float:
    """CPU time of this process and of its children, ended ones included, in seconds."""
    ticks = 0.0
    processes = [os.getpid()]
    for pid in processes:
        for task in Path(f"/proc/{pid}/task").iterdir():
            processes += [int(child) for child in (task / "children").read_text().split()]
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        ticks += sum(map(int, fields[11:15]))  # user and system, its own and of ended children
    return ticks / os.sysconf("SC_CLK_TCK")


def _device() -> str:
    from runtime.device import dali_device

    return dali_device("auto")


def prepare(images: Path, work: Path, count: int) -> None:
    """Copy the found JPEGs into a tree of ``count`` files and pack it twice."""
    found = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    for number in range(count):
        source = found[number % len(found)]
        target = work / "tree" / f"class{number % len(found):04d}" / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    pack = [sys.executable, "-m", "sharding", "pack", "imagefolder", "--root", str(work / "tree")]
    pack += ["--shard-size", "64MB", "--max-rejects", "0", "--out"]
    subprocess.run([*pack, str(work / "pack")], check=True)
    subprocess.run([*pack, str(work / "pack256"), "--resize-short", "256"], check=True)
    _enlarge_index(work / "pack", work / "packlarge")


def _enlarge_index(pack: Path, out: Path) -> None:
    """Make a pack ``out`` with at least ImageNet's rows, and its classes: links to the shards of
    ``pack``, over and over."""
    from sharding.format.index import SCHEMA, key_name, write_index
    from sharding.format.manifest import dali_index_name, shard_name
    from sharding.format.opening import open_pack

    contents, classes = open_pack(pack), 1000
    manifest, index = contents.manifest, contents.index
    copies = -(-1_281_167 // len(index))
    shards = [
        dataclasses.replace(info, name=shard_name(number))
        for number, info in enumerate(manifest.shards * copies)
    ]
    out.mkdir()
    for shard, info in zip(shards, manifest.shards * copies, strict=True):
        os.link(pack / info.name, out / shard.name)
        os.link(pack / dali_index_name(info.name), out / dali_index_name(shard.name))
    rows = len(index) * copies
    columns: dict[str, Any] = {
        name: np.tile(column, copies) for name, column in vars(index).items()
    }
    columns["shard"] = np.repeat(np.arange(len(shards)), [shard.samples for shard in shards])
    columns["label"] = np.arange(rows) % classes
    columns["key"] = [key_name(number) for number in range(rows)]
    columns["source"] = [f"n{number % classes:08d}/{number:08d}.JPEG" for number in range(rows)]
    stated = write_index(out, [{name: columns[name] for name in SCHEMA.names}])
    dataclasses.replace(
        manifest,
        classes=tuple(f"n{number:08d}" for number in range(classes)),
        samples=rows,
        bytes=manifest.bytes * copies,
        shards=tuple(shards),
        index=stated,
    ).save(out)


def _start(way: str, work: Path, threads: int, images: int) -> subprocess.Popen[str]:
    """Start a process, at the head of a group of its own, that measures one way."""
    command = [sys.executable, "-m", "benchmarks.input_pipeline", "--way", way]
    command += ["--work", str(work), "--threads", str(threads), "--measured", str(images)]
    return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, float] | None:
    """What the process measured, or None with a line on standard error; ends its whole group."""
    output, errors = process.communicate()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers go on for seconds without their parent
    if process.returncode:
        print(f"left out: {errors.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(output.splitlines()[-1])


def run_all(arguments: argparse.Namespace, work: Path) -> dict[str, list[dict[str, float]]]:
    """Every way in turn, ``arguments.rounds`` times; a way that cannot be imported is left out."""
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(arguments.rounds):
        for way in arguments.ways or WAYS:
            if number and way not in results:
                continue
            print(f"round {number + 1}: {way}: ", end="", file=sys.stderr, flush=True)
            measured = _finish(_start(way, work, arguments.threads, arguments.measured))
            if measured:
                results.setdefault(way, []).append(measured)
                print(f"{measured['images/s']:.0f} images/s", file=sys.stderr)
    return results


def scaling(arguments: argparse.Namespace, work: Path) -> str:
    """A markdown table of the sums over 1, 2 and 4 processes at once that share the threads."""
    lines = ["processes | images/s | peak MB", "---|---|---"]
    for processes in (1, 2, 4):
        threads, images = max(1, arguments.threads // processes), arguments.measured // processes
        running = [_start("ours", work, threads, images) for _ in range(processes)]
        measured = [one for process in running if (one := _finish(process))]
        rate, memory = (sum(one[key] for one in measured) for key in ("images/s", "memory"))
        lines.append(f"{processes} | {rate:.0f} | {memory:.0f}")
    return "\n".join(f"| {line} |" for line in lines)


def report(results: dict[str, list[dict[str, float]]], reference: str) -> str:
    """A markdown table of medians, with ratios of each round's rate to the reference's."""
    head = ["way", "images/s", "pairs/s", "CPU s per 1,000 images", "peak MB", "first batch s"]
    lines = [" | ".join([*head, f"x {reference}"]), "|".join(["---"] * 7)]
    for way, runs in results.items():

        def median(key: str, runs: list[dict[str, float]] = runs) -> float:
            return statistics.median(run[key] for run in runs)

        ratio = statistics.median(
            run["images/s"] / base["images/s"]
            for run, base in zip(runs, results[reference], strict=False)
        )
        rate = median("images/s")
        lines.append(
            f"{way} | {rate:.0f} | {rate / 2:.0f} | {median('cpu'):.2f} | "
            f"{median('memory'):.0f} | {median('first'):.1f} | {ratio:.2f}"
        )
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder of JPEG files, searched in depth")
    parser.add_argument("--count", type=int, default=1024, help="files to copy them to")
    parser.add_argument("--measured", type=int, default=2500, help="images timed each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measured = measure(arguments.way, arguments.work, arguments.threads, arguments.measured)
        print(json.dumps(measured), flush=True)
        os._exit(0)  # worker processes of endless loaders do not join
    if not arguments.images:
        parser.error("--images is needed: a folder of JPEG files")
    with tempfile.TemporaryDirectory() as work:
        prepare(arguments.images, Path(work), arguments.count)
        results = run_all(arguments, Path(work))
        scaled = scaling(arguments, Path(work))
    reference = "original (Pillow)" if "original (Pillow)" in results else next(iter(results))
    print(f"{arguments.threads} threads or workers, {_device()}, {arguments.rounds} rounds\n")
    print(report(results, reference))
    if _device() == "cpu":
        print(
            "\nNo GPU is visible. On one the same ways decode on it, in the same table, and ours "
            "should\nreach 0.9 of `DALI decode only`. `python -m benchmarks.training` prints the "
            "share of a step\nspent waiting for data, which should stay below 5 %."
        )
    print(f"\nours, {arguments.threads} threads shared by processes\n\n{scaled}")


if __name__ == "__main__":
    main()
