"""How fast images are decoded, and how fast they reach a training step."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from nvidia.dali import fn, pipeline_def, types

from benchmarks.gpu.node import Budget, Node, Row, Value
from benchmarks.gpu.packs import ORIGINAL, RESIZED, pair_loader
from benchmarks.harness import seconds_per_call
from pipelines.config import InputConfig
from pipelines.graph import DECODING, decoder_options
from pipelines.pack import Pack
from runtime.device import resolve_device

_PREFETCH = 2


def pairs(node: Node, budget: Budget) -> Iterator[Row]:
    """The complete input as training uses it: read, decode, augment, deliver."""
    dtypes: tuple[Literal["float32", "float16"], ...] = ("float32", "float16")
    for (dtype, name), seconds in budget.split(
        list(itertools.product(dtypes, (ORIGINAL, RESIZED)))
    ):
        pack = Pack(node.folder / name)
        started = time.perf_counter()
        loader = pair_loader(pack, node.decoding(dtype=dtype), node.size.pairs)
        next(loader)
        first = time.perf_counter() - started
        yield Row(
            f"{name}, {dtype}",
            _rates(partial(next, loader), 2 * node.size.pairs, node, seconds - first)
            | {"first batch s": first},
        )


def decode(node: Node, budget: Budget) -> Iterator[Row]:
    """Decoding alone, for each share of the GPU's JPEG engine and number of threads."""
    size = node.size
    items = list(itertools.product((ORIGINAL, RESIZED), size.hw_decoder_loads, size.threads))
    for (name, load, threads), seconds in budget.split(items):
        pipeline = _decoder(Pack(node.folder / name), node, load, threads)
        engine = f"hw_decoder_load {load:g}" if node.device == "gpu" else "on the CPU"
        what = f"{name}, {engine}, threads {threads}"
        yield Row(what, _rates(pipeline.run, 2 * size.pairs, node, 0.8 * seconds))


def _rates(
    action: Callable[[], object], images: int, node: Node, seconds: float
) -> dict[str, Value]:
    cpu, started = time.process_time(), time.perf_counter()
    each = seconds_per_call(action, resolve_device(node.device), max(0.0, seconds))
    cores = (time.process_time() - cpu) / (time.perf_counter() - started)
    return {"images/s": images / each, "busy cores": cores}


def _decoder(pack: Pack, node: Node, hw_decoder_load: float, threads: int):
    """A built pipeline that decodes the pack's images and does nothing else."""
    on_gpu, batch = node.device == "gpu", 2 * node.size.pairs
    options: dict[str, Any] = {"device": "cpu"}
    if on_gpu:
        largest = int(pack.index.width.max()), int(pack.index.height.max())
        options = decoder_options(InputConfig(hw_decoder_load=hw_decoder_load), largest)

    def source(info) -> list[np.ndarray]:
        rows = (np.arange(batch) + info.iteration * batch) % len(pack.index)
        return pack.read(rows)

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=0 if on_gpu else None,
        prefetch_queue_depth=_PREFETCH,
        exec_dynamic=True,
    )
    def graph():
        encoded = fn.external_source(
            source=source, batch=True, batch_info=True, no_copy=True, dtype=types.UINT8
        )
        return fn.decoders.image(encoded, **DECODING, **options)

    pipeline = graph()
    pipeline.build()
    return pipeline
