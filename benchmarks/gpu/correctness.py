"""Are the images right: against a reference, while the GPU is busy, and from a damaged pack?"""

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.drawing import draw, encode
from benchmarks.gpu.node import Budget, Node, Row, Value
from benchmarks.gpu.packs import NUM_NEGATIVES, ORIGINAL, PROGRESSIVE, pair_loader
from benchmarks.original import decode, squashing_transform
from model.config import PAPER_PREPROCESSING, Preprocessing
from model.geometry import evaluation_view
from pipelines.augmentation import unchanged
from pipelines.config import AugmentConfig, Decoding, InputConfig
from pipelines.graph import graph_inputs, image_pipeline
from pipelines.pack import Pack
from sharding.images import ImageOptions, pack_image

MEAN_LIMIT = 2.0  # levels of 255: decoders round differently, by a level or two
BLOCK_LIMIT = 16.0  # levels: the mean over any block; far below what a misplaced block gives
_BLOCK = 16  # pixels
_NOT_FINITE = 1e6  # levels, in place of what is not a number
_BUSY_SECONDS = 0.1
_ODD_IMAGES = 3  # of each kind that is compared
_PLAIN = AugmentConfig(jitter=0, grayscale=0)

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Differences:
    """How far n images are from their reference, in levels of 255.

    Attributes:
        mean: float (n,), mean absolute difference of each image.
        block: float (n,), of its worst block of 16 x 16 pixels, which shows an image that is
            right but for a part.
        largest: of all single values.
    """

    mean: Tensor
    block: Tensor
    largest: float

    @staticmethod
    def between(images: Tensor, reference: Tensor) -> "Differences":
        """Of two batches (n, 3, S, S) normalized as in training, on any device."""
        scale = 255 * torch.tensor(PAPER_PREPROCESSING.std)[:, None, None]
        apart = (images.float().cpu() - reference.float().cpu()).abs() * scale
        apart = torch.where(apart.isfinite(), apart, _NOT_FINITE)
        blocks = functional.avg_pool2d(apart.mean(1, keepdim=True), _BLOCK, ceil_mode=True)
        return Differences(apart.mean((1, 2, 3)), blocks.amax((1, 2, 3)), float(apart.max()))

    @property
    def num_wrong(self) -> int:
        """How many images exceed a limit."""
        return int(((self.mean > MEAN_LIMIT) | (self.block > BLOCK_LIMIT)).sum())

    def row(self, what: str) -> Row:
        """The verdict: no image may exceed a limit."""
        values: dict[str, Value] = {
            "images": len(self.mean),
            "wrong": self.num_wrong,
            "mean": float(self.mean.max()),
            "block": float(self.block.max()),
            "max": self.largest,
            "limits (levels)": f"mean {MEAN_LIMIT:g}, block {BLOCK_LIMIT:g}",
        }
        return Row(what, values, passed=self.num_wrong == 0)


def pixels(node: Node, budget: Budget) -> Iterator[Row]:
    """Each encoding on the GPU against DALI's decode on the CPU; on a CPU, DALI against Pillow."""
    for kind, contents in encodings(node.size.width, node.size.height).items():
        yield compare_pixels(contents, node.device, node.size.image_size).row(kind)


def encodings(width: int, height: int) -> dict[str, list[bytes]]:
    """Encoded images of each kind, as packing them gives them."""
    photos = [draw(number, width, height) for number in range(_ODD_IMAGES)]
    dots = [Image.new("RGB", (1, 1), color) for color in ((200, 30, 90), (10, 240, 120))]
    kinds = {
        "baseline JPEG": [encode(photo) for photo in photos],
        "progressive JPEG": [encode(photo, progressive=True) for photo in photos],
        "JPEG without chroma subsampling": [encode(photo, subsampling=0) for photo in photos],
        "gray JPEG": [encode(photo.convert("L")) for photo in photos],
        "CMYK JPEG, packed": [encode(photo.convert("CMYK")) for photo in photos],
        "PNG": [encode(photo, "PNG") for photo in photos],
        "gray PNG": [encode(photo.convert("L"), "PNG") for photo in photos],
        "1 x 1 JPEG and PNG": [encode(dots[0]), encode(dots[1], "PNG")],
    }
    options = ImageOptions()
    return {
        kind: [pack_image(content, options).content for content in contents]
        for kind, contents in kinds.items()
    }


def compare_pixels(contents: Sequence[bytes], device: Device, image_size: int) -> Differences:
    """Packed images squashed to ``image_size`` on ``device`` against the slow reference."""
    images = _squash(contents, device, image_size)
    if device == "gpu":
        return Differences.between(images, _squash(contents, "cpu", image_size))
    transform = squashing_transform(image_size)
    return Differences.between(images, torch.stack([decode(c, transform) for c in contents]))


def _squash(contents: Sequence[bytes], device: Device, image_size: int) -> Tensor:
    """The images (n, 3, S, S) through the product's graph."""
    encoded = [np.frombuffer(content, dtype=np.uint8) for content in contents]
    sizes = [Image.open(io.BytesIO(content)).size for content in contents]
    width, height = np.array(sizes, dtype=np.int32).T
    preprocessing = Preprocessing(image_size=image_size)
    augmentation = unchanged(evaluation_view(preprocessing, width, height))
    pipeline = image_pipeline(
        lambda _info: graph_inputs(encoded, augmentation),
        Decoding(preprocessing, InputConfig(device=device, num_threads=2, prefetch=1)),
        batch_size=len(contents),
    )
    (output,) = pipeline.run()
    return torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2).clone()


def stream_order(node: Node, budget: Budget) -> Iterator[Row]:
    """Images while the GPU is busy, against the CPU's, for each share of the JPEG engine."""
    loads = [load for load in node.size.hw_decoder_loads if load] or [0.0]
    items = [(name, load) for name in (ORIGINAL, PROGRESSIVE) for load in loads]
    for (name, load), _ in budget.split(items):
        pack = Pack(node.folder / name)
        found = compare_while_busy(pack, node, load)
        kind = "progressive" if name == PROGRESSIVE else "baseline"
        where = f"hw_decoder_load {load:g}" if node.device == "gpu" else "n/a on CPU: not busy"
        yield found.row(f"{kind}, {where}")


def compare_while_busy(pack: Pack, node: Node, hw_decoder_load: float) -> Differences:
    """A loader's images, read behind queued work, against those of a loader on the CPU.

    A decoder that ignores the order of streams writes into memory that queued work still reads,
    or hands out images that are not finished (meta-pytorch/torchcodec pull request 1634: nvJPEG's
    hardware decoder on an H100). So 0.1 s of work is queued before each batch is asked for, each
    batch is copied behind that work while the next ones are decoded, and nothing waits for the GPU
    before the end.
    """
    decoding = node.decoding(hw_decoder_load=hw_decoder_load)
    batches = pair_loader(pack, decoding, node.size.check_pairs, _PLAIN)
    queue_work = _busy_work() if node.device == "gpu" else lambda: None
    copies = []
    for _ in range(node.size.check_batches):
        queue_work()
        copies.append(next(batches).images.clone())
    reference = pair_loader(pack, node.decoding(device="cpu"), node.size.check_pairs, _PLAIN)
    parts = [Differences.between(copy, next(reference).images) for copy in copies]
    return Differences(
        torch.cat([part.mean for part in parts]),
        torch.cat([part.block for part in parts]),
        max(part.largest for part in parts),
    )


def _busy_work() -> Callable[[], None]:
    """Queues about 0.1 s of matrix products on the current stream of the GPU."""
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    product = torch.empty_like(matrix)
    torch.matmul(matrix, matrix, out=product)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.matmul(matrix, matrix, out=product)
    end.record()
    torch.cuda.synchronize()
    calls = int(1000 * _BUSY_SECONDS / start.elapsed_time(end)) + 1

    def queue() -> None:
        for _ in range(calls):
            torch.matmul(matrix, matrix, out=product)

    return queue


def damage(node: Node, budget: Budget) -> Iterator[Row]:
    """A pack with damaged images is read to the end of an epoch, with and without checksums."""
    for check_crc in (True, False):
        folder = Path(shutil.copytree(node.folder / ORIGINAL, node.folder / f"damaged-{check_crc}"))
        damaged = damage_pack(Pack(folder))
        yield survive_damage(Pack(folder), damaged, node, check_crc=check_crc)


def damage_pack(pack: Pack) -> list[int]:
    """Damage three images in the shards: without a file's first bytes, zeros after the header, and
    a flipped bit in the middle. Returns their rows."""
    rows = [1, len(pack.index) // 2, len(pack.index) - 2]
    contents = [image.tobytes() for image in pack.read(np.array(rows))]
    middle = len(contents[2]) // 2
    changed = (
        b"no image" + contents[0][8:],
        contents[1][:200] + bytes(len(contents[1]) - 200),
        contents[2][:middle] + bytes([contents[2][middle] ^ 16]) + contents[2][middle + 1 :],
    )
    for row, content in zip(rows, changed, strict=True):
        shard = pack.path / pack.manifest.shards[pack.index.shard[row]].name
        with shard.open("r+b") as file:
            file.seek(int(pack.index.offset[row]))
            file.write(content)
    return rows


def survive_damage(pack: Pack, damaged: list[int], node: Node, *, check_crc: bool) -> Row:
    """Read an epoch of pairs, in which each image is an anchor at least once.

    With checksums each damaged image must be replaced and counted; without, those must be that
    cannot be decoded at all, and the loader must continue.
    """
    decoding = node.decoding(check_crc=check_crc, max_damaged=10)
    loader = pair_loader(pack, decoding, node.size.pairs)
    steps = -(-node.size.images * (1 + NUM_NEGATIVES) // node.size.pairs)
    served, finite = 0, True
    for _ in range(steps):
        batch = next(loader)
        served += int(np.isin(batch.rows, damaged if check_crc else damaged[:1]).sum())
        finite &= bool(batch.images.isfinite().all())
    values: dict[str, Value] = {
        "batches": steps,
        "damaged images": len(damaged),
        "found and replaced": loader.num_damaged,
        "damaged images served": served,
    }
    complete = loader.num_damaged == len(damaged) if check_crc else loader.num_damaged >= 1
    return Row(
        f"checksums {'on' if check_crc else 'off'}",
        values,
        passed=complete and finite and not served,
    )
