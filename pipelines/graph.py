"""The DALI graph, shared by training and evaluation, on CPU and GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.math as math
import nvidia.dali.types as types
from nvidia.dali import Pipeline, pipeline_def

from model.config import Preprocessing
from pipelines.augmentation import Augmentation
from pipelines.config import Decoding, InputConfig
from pipelines.threads import cores_per_process
from runtime.device import dali_device

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's and torchvision's grayscale
_INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
# Pillow does not rotate by EXIF orientation when it opens an image, so neither does the decoder.
DECODING = {"output_type": types.RGB, "adjust_orientation": False, "jpeg_fancy_upsampling": True}


class GraphInputs(NamedTuple):
    """The graph's inputs for n images; points are (y, x)."""

    encoded: list[np.ndarray]  # n arrays, uint8 (size,)
    start: np.ndarray  # int32 (n, 2), of the window to decode, in source pixels
    end: np.ndarray  # int32 (n, 2)
    region_start: np.ndarray  # float32 (n, 2), of the region to resize, relative to the window
    region_end: np.ndarray  # float32 (n, 2)
    size: np.ndarray  # float32 (n, 2), height and width after the resize
    flip: np.ndarray  # int32 (n,), 0 or 1
    recolor: np.ndarray  # int32 (n,), 1 if any of the following changes the image
    brightness: np.ndarray  # float32 (n,)
    contrast: np.ndarray  # float32 (n,)
    saturation: np.ndarray  # float32 (n,)
    hue: np.ndarray  # float32 (n,), degrees


_INPUT_TYPES = [types.UINT8, *2 * [types.INT32], *3 * [types.FLOAT], *2 * [types.INT32]]
_INPUT_TYPES += 4 * [types.FLOAT]


def graph_inputs(encoded: list[np.ndarray], augmentation: Augmentation) -> GraphInputs:
    """The graph's inputs for n ``encoded`` images, uint8 (size,) each."""
    a, (window, region, size) = augmentation, augmentation.view
    start = _columns(window, 1, 0)
    recolor = (a.brightness != 1) | (a.contrast != 1) | (a.saturation != 1) | (a.hue != 0)
    return GraphInputs(
        encoded,
        start=start,
        end=start + _columns(window, 3, 2),
        region_start=_columns(region, 1, 0),
        region_end=_columns(region, 3, 2),
        size=_columns(size, 1, 0).astype(np.float32),
        flip=a.flip.astype(np.int32),
        recolor=recolor.astype(np.int32),
        brightness=a.brightness,
        contrast=a.contrast,
        saturation=a.saturation,
        hue=a.hue * np.float32(360),
    )


def _columns(array: np.ndarray, first: int, second: int) -> np.ndarray:
    return np.stack([array[:, first], array[:, second]], axis=1)


def image_pipeline(
    source: Callable,
    decoding: Decoding,
    *,
    batch_size: int,
    size_hint: tuple[int, int] = (0, 0),
) -> Pipeline:
    """Build the graph from encoded bytes to normalized images.

    Args:
        source: called with a ``BatchInfo``; returns ``GraphInputs`` of at most ``batch_size``
            images.
        decoding: how images are decoded and preprocessed.
        batch_size: maximum number of images per batch.
        size_hint: width and height in pixels for which the GPU's decoder allocates memory at first.

    Returns:
        A built pipeline whose only output is (n, S, S, 3), normalized.

    Raises:
        ConfigError: a GPU is requested and none is available.
    """
    config = decoding.config
    device = dali_device(config.device)
    pipeline = image_graph(
        source,
        decoding.preprocessing,
        decoder_options(config, size_hint) if device == "gpu" else {"device": "cpu"},
        types.FLOAT16 if config.dtype == "float16" else types.FLOAT,
        batch_size=batch_size,
        num_threads=config.num_threads or cores_per_process(),
        device_id=decoding.device_id if device == "gpu" else None,
        prefetch_queue_depth=config.prefetch,
    )
    pipeline.build()
    return pipeline


def decoder_options(config: InputConfig, size_hint: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """The options of DALI's image decoder on a GPU."""
    return {
        "device": "mixed",
        "hw_decoder_load": config.hw_decoder_load,
        "preallocate_width_hint": size_hint[0],
        "preallocate_height_hint": size_hint[1],
    }


@pipeline_def(enable_conditionals=True, exec_dynamic=True)
def image_graph(source, preprocessing: Preprocessing, decoder: dict[str, Any], dtype):
    """The graph, not yet built; ``decoder`` holds the options of DALI's image decoder."""
    on_gpu = decoder["device"] != "cpu"
    data: Any = GraphInputs(  # DALI nodes instead of arrays
        *fn.external_source(
            source=source,
            num_outputs=len(_INPUT_TYPES),
            batch=True,
            batch_info=True,
            no_copy=True,
            dtype=_INPUT_TYPES,
        )
    )
    window = {"start": data.start, "end": data.end, "axes": [0, 1]}
    if on_gpu:  # region decoding is faulty on some GPUs (nvImageCodec issue 55)
        images = fn.slice(fn.decoders.image(data.encoded, **DECODING, **decoder), **window)
    else:
        images = fn.decoders.image_slice(data.encoded, **window, **DECODING, **decoder)
    images = fn.resize(
        images,
        size=data.size,
        roi_start=data.region_start,
        roi_end=data.region_end,
        interp_type=_INTERPOLATION[preprocessing.interpolation],
        antialias=True,
    )
    if data.recolor > 0:
        bright = fn.brightness_contrast(images, brightness=data.brightness)
        gray = _mean_gray(bright)
        if on_gpu:  # an operator's argument would be copied to the host, which would wait for it
            contrasted = mix_with_gray(bright, data.contrast.gpu(), gray)
        else:
            contrasted = fn.brightness_contrast(
                bright, contrast=data.contrast, contrast_center=gray
            )
        # On the CPU, a float result that is clamped here takes half the time of a rounded one.
        twisted = fn.color_twist(
            contrasted, saturation=data.saturation, hue=data.hue, dtype=types.FLOAT
        )
        images = math.max(math.min(twisted, np.float32(255)), np.float32(0))
    else:
        images = fn.cast(images, dtype=types.FLOAT)
    side = preprocessing.image_size
    return fn.crop_mirror_normalize(  # pads images smaller than the network's input with the mean
        images,
        dtype=dtype,
        output_layout="HWC",
        crop=(side, side),
        rounding="truncate",
        out_of_bounds_policy="pad",
        mirror=data.flip,
        mean=[255 * value for value in preprocessing.mean],
        std=[255 * value for value in preprocessing.std],
    )


def mix_with_gray(images, contrast, gray):
    """Change the contrast of uint8 images about ``gray`` by arithmetic.

    DALI's own operator rounds its result and this does not: they differ by up to 1 level of 255.
    """
    mixed = images * contrast + gray * (np.float32(1) - contrast)
    return math.clamp(mixed, np.float32(0), np.float32(255))


def _mean_gray(images):
    channels = fn.reductions.mean(images, axes=[0, 1], dtype=types.FLOAT)
    return fn.reductions.sum(channels * types.Constant(_LUMA, dtype=types.FLOAT))
