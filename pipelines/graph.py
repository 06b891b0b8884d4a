"""The DALI graph, the same for training and evaluation and for CPU and GPU."""

from collections.abc import Callable

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.math as math
import nvidia.dali.types as types
from nvidia.dali import Pipeline, pipeline_def

from pipelines.augmentation import Augmentation

# ImageNet statistics on a scale of 0 to 255, as torchvision's models expect them.
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's and torchvision's grayscale

_INPUT_TYPES = [types.UINT8] + 4 * [types.INT32] + 4 * [types.FLOAT]


def image_pipeline(
    source: Callable,
    *,
    batch_size: int,
    image_size: int,
    device: str,
    device_id: int | None,
    num_threads: int,
    prefetch: int,
    half: bool = False,
    hw_decoder_load: float = 0.0,
    width_hint: int = 0,
    height_hint: int = 0,
) -> Pipeline:
    """Build the graph from encoded bytes to normalised images.

    Args:
        source: called with a ``BatchInfo``; returns ``graph_inputs`` of at most ``batch_size``
            images.
        batch_size: most images a batch.
        image_size: S, height and width of the results in pixels.
        device: ``"cpu"`` or ``"gpu"``.
        device_id: the GPU's number, None on a CPU.
        num_threads: DALI's worker threads.
        prefetch: batches prepared ahead.
        half: float16 in place of float32.
        hw_decoder_load: share of the images given to the GPU's JPEG engine.
        width_hint: width in pixels for which the GPU decoder reserves memory; 0 for none.
        height_hint: likewise the height.

    Returns:
        A built pipeline whose one output is (n, S, S, 3), normalised with ImageNet's statistics.
    """
    pipeline = _graph(
        source,
        image_size,
        _decoder_options(device, hw_decoder_load, width_hint, height_hint),
        types.FLOAT16 if half else types.FLOAT,
        batch_size=batch_size,
        num_threads=num_threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
    )
    pipeline.build()
    return pipeline


def _decoder_options(
    device: str, hw_decoder_load: float, width_hint: int, height_hint: int
) -> dict[str, object]:
    if device == "cpu":
        return {"device": "cpu"}
    return {
        "device": "mixed",
        "hw_decoder_load": hw_decoder_load,
        "preallocate_width_hint": width_hint,
        "preallocate_height_hint": height_hint,
    }


def graph_inputs(encoded: list[np.ndarray], augmentation: Augmentation) -> tuple:
    """What the pipeline's source returns for n ``encoded`` images, uint8 (size,) each."""
    a = augmentation
    start = np.ascontiguousarray(a.crop[:, 1::-1], dtype=np.int32)
    end = start + a.crop[:, :1:-1]
    recolour = (a.brightness != 1) | (a.contrast != 1) | (a.saturation != 1) | (a.hue != 0)
    return (
        encoded,
        start,
        end,
        a.flip.astype(np.int32),
        recolour.astype(np.int32),
        a.brightness,
        a.contrast,
        a.saturation,
        a.hue * np.float32(360),
    )


@pipeline_def(enable_conditionals=True, exec_dynamic=True)
def _graph(source, image_size, decoder_options, dtype):
    encoded, start, end, flip, recolour, brightness, contrast, saturation, hue = fn.external_source(
        source=source,
        num_outputs=len(_INPUT_TYPES),
        batch=True,
        batch_info=True,
        no_copy=True,
        dtype=_INPUT_TYPES,
    )
    # Pillow does not rotate by EXIF, so neither does the decoder.
    options = {
        "output_type": types.RGB,
        "adjust_orientation": False,
        "jpeg_fancy_upsampling": True,
        **decoder_options,
    }
    if decoder_options["device"] == "cpu":
        images = fn.decoders.image_slice(encoded, start=start, end=end, axes=[0, 1], **options)
    else:  # decoding regions is faulty on some GPUs (nvImageCodec issue 55)
        whole = fn.decoders.image(encoded, **options)
        images = fn.slice(whole, start=start, end=end, axes=[0, 1])
    images = fn.resize(
        images, size=[image_size, image_size], interp_type=types.INTERP_LINEAR, antialias=True
    )
    if recolour > 0:
        bright = fn.brightness_contrast(images, brightness=brightness)
        channels = fn.reductions.mean(bright, axes=[0, 1], dtype=types.FLOAT)
        gray = fn.reductions.sum(channels * types.Constant(_LUMA, dtype=types.FLOAT))
        contrasted = fn.brightness_contrast(bright, contrast=contrast, contrast_center=gray.cpu())
        # On the CPU a float result and its bounds take half the time of a rounded one.
        twisted = fn.color_twist(contrasted, saturation=saturation, hue=hue, dtype=types.FLOAT)
        images = math.max(math.min(twisted, np.float32(255)), np.float32(0))
    else:
        images = fn.cast(images, dtype=types.FLOAT)
    return fn.crop_mirror_normalize(
        images, dtype=dtype, output_layout="HWC", mirror=flip, mean=MEAN, std=STD
    )
