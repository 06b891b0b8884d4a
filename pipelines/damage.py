"""Finds samples that differ from what was packed or cannot be decoded."""

import io
import zlib

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
from nvidia.dali import Pipeline, pipeline_def
from PIL import Image

from pipelines.config import InputConfig
from pipelines.graph import DECODING, decoder_options
from pipelines.pack import Pack
from runtime.device import dali_device
from sharding.format.header import pixel_size


class DamageCheck:
    """Compares the samples that are read with the pack's index.

    Args:
        pack: the pack they are read from.
        check_crc: whether to compare checksums, and not only the size in pixels.
    """

    def __init__(self, pack: Pack, *, check_crc: bool) -> None:
        self._pack, self._check_crc = pack, check_crc

    def items(
        self, rows: np.ndarray, images: list[np.ndarray], *, check_crc: bool = False
    ) -> list[int]:
        """The damaged ones of items 0 .. n-1.

        Args:
            rows: int64 (n,), rows of the index.
            images: the bytes read for them, uint8 (size,) each.
            check_crc: compare checksums even if the constructor was told not to.
        """
        index = self._pack.index
        sizes = zip(index.width[rows].tolist(), index.height[rows].tolist(), strict=True)
        damaged = [
            item
            for item, (image, size) in enumerate(zip(images, sizes, strict=True))
            if pixel_size(image.data) != size
        ]
        if check_crc or self._check_crc:
            sums = index.crc32[rows].tolist()
            wrong = [i for i, image in enumerate(images) if zlib.crc32(image.data) != sums[i]]
            damaged = sorted({*damaged, *wrong})
        return damaged


def undecodable(images: list[np.ndarray], config: InputConfig, device_id: int) -> list[int]:
    """The items 0 .. n-1 that DALI cannot decode; each is decoded on its own.

    Args:
        images: uint8 (size,) each.
        config: the decoder's device and options.
        device_id: number of the GPU; ignored when the CPU decodes.

    Raises:
        RuntimeError: the decoder fails even on an intact image.
    """
    pipeline = _decoder(config, device_id)
    pipeline.run(encoded=[_intact_image()])
    failed = []
    for item, image in enumerate(images):
        try:
            pipeline.run(encoded=[image])
        except RuntimeError:  # the pipeline cannot run again
            failed.append(item)
            pipeline = _decoder(config, device_id)
    return failed


def _decoder(config: InputConfig, device_id: int) -> Pipeline:
    on_gpu = dali_device(config.device) == "gpu"
    return _decoder_graph(
        decoder_options(config) if on_gpu else {"device": "cpu"},
        device_id=device_id if on_gpu else None,
    )


@pipeline_def(batch_size=1, num_threads=1, prefetch_queue_depth=1, exec_dynamic=True)
def _decoder_graph(decoder):
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    return fn.decoders.image(encoded, **DECODING, **decoder)


def _intact_image() -> np.ndarray:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, format="JPEG")
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)
