"""Ways of loading images with DALI alone, as in `ways.py`: bounds for what the input can reach."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 128
SIZE = 224


def device() -> str:
    """Where DALI decodes: ``cpu`` or ``gpu``."""
    from runtime.device import dali_device

    return dali_device("auto")


def _from_memory(work: Path, threads: int, build: Callable) -> Iterator[int]:
    from nvidia.dali import pipeline_def

    from pipelines.augmentation import draw_augmentation
    from pipelines.config import AugmentConfig
    from pipelines.graph import graph_inputs
    from pipelines.hashing import stream
    from pipelines.pack import Pack

    pack = Pack(work / "pack")
    on_gpu = device() == "gpu"

    def source(info) -> tuple:
        rows = (np.arange(BATCH) * 7919 + info.iteration * BATCH) % len(pack.index)
        key = stream(0, rows, np.array(info.iteration))
        augmentation = draw_augmentation(
            AugmentConfig(), SIZE, key, pack.index.width[rows], pack.index.height[rows]
        )
        return graph_inputs(pack.read(rows), augmentation)

    pipeline = pipeline_def(build)(
        source,
        "mixed" if on_gpu else "cpu",
        batch_size=BATCH,
        num_threads=threads,
        device_id=0 if on_gpu else None,
        exec_dynamic=True,
    )
    return _batches_of(pipeline)


def _batches_of(pipeline: Any) -> Iterator[int]:
    pipeline.build()
    while True:
        (output,) = pipeline.run()
        yield len(output)


def _fed(source: Callable, decoder: str) -> tuple[Any, Any]:
    """Decoded images, and the other inputs of the graph: GraphInputs of DALI's nodes."""
    from nvidia.dali import fn

    from pipelines.graph import GraphInputs

    inputs: Any = GraphInputs(
        *fn.external_source(
            source=source,
            num_outputs=len(GraphInputs._fields),
            batch=True,
            batch_info=True,
            no_copy=True,
        )
    )
    images = fn.decoders.image(inputs.encoded, device=decoder, adjust_orientation=False)
    return images, inputs


def _resized(images: Any, inputs: Any) -> Any:
    """The window of each image, resized."""
    from nvidia.dali import fn, types

    start, end = (fn.cast(corner, dtype=types.FLOAT) for corner in (inputs.start, inputs.end))
    return fn.resize(images, size=[SIZE, SIZE], roi_start=start, roi_end=end)


def _normalized(images: Any, mirror: Any) -> Any:
    from nvidia.dali import fn, types

    from model.config import PAPER_PREPROCESSING

    mean, std = ([255 * v for v in w] for w in (PAPER_PREPROCESSING.mean, PAPER_PREPROCESSING.std))
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="HWC", mirror=mirror, mean=mean, std=std
    )


def decode_only(work: Path, threads: int) -> Iterator[int]:
    """DALI decoding, from memory: the bound."""
    return _from_memory(work, threads, lambda source, decoder: _fed(source, decoder)[0])


def decode_and_resize(work: Path, threads: int) -> Iterator[int]:
    """DALI decoding and resizing the crop, from memory."""
    return _from_memory(work, threads, lambda source, decoder: _resized(*_fed(source, decoder)))


def bare_graph(work: Path, threads: int) -> Iterator[int]:
    """DALI decode, resize, `color_twist` of each image, normalize, from memory; contrast at 128."""
    from nvidia.dali import fn

    def build(source: Callable, decoder: str):
        images, inputs = _fed(source, decoder)
        images = fn.color_twist(
            _resized(images, inputs),
            brightness=inputs.brightness,
            contrast=inputs.contrast,
            saturation=inputs.saturation,
            hue=inputs.hue,
        )
        return _normalized(images, inputs.flip)

    return _from_memory(work, threads, build)


def dali_reader(work: Path, threads: int) -> Iterator[int]:
    """DALI's own sequential WebDataset reader with its own random crops and colors; no pairs."""
    from nvidia.dali import fn, pipeline_def, types

    on_gpu = device() == "gpu"
    shards = sorted(str(path) for path in (work / "pack").glob("*.tar"))

    @pipeline_def(batch_size=BATCH, num_threads=threads, device_id=0 if on_gpu else None, seed=0)
    def graph():
        encoded = fn.readers.webdataset(
            paths=shards,
            index_paths=[shard.removesuffix("tar") + "idx" for shard in shards],
            ext=["jpg"],
            name="reader",
            random_shuffle=True,
            initial_fill=1000,
        )
        images = fn.decoders.image(encoded, device="mixed" if on_gpu else "cpu")
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
        return _normalized(images, fn.random.coin_flip(dtype=types.INT32))

    return _batches_of(graph())
