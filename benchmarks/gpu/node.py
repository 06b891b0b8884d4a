"""What each part of the check is given: the device, how large it measures, and its time."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from model.config import ModelConfig, Preprocessing
from pipelines.config import Decoding, InputConfig

T = TypeVar("T")
Value = float | int | str


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured or checked.
        values: the results by name; a name says the unit.
        passed: the verdict of a check; None for a measurement.
    """

    what: str
    values: dict[str, Value]
    passed: bool | None = None


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        width, height: of the drawn images, in pixels.
        images: in the drawn pack, a multiple of 32.
        resize_short: shorter side of the images in the resized pack, in pixels.
        image_size: S of the network's input.
        pairs: pairs per step.
        groups: P x K x R of a group with as many images.
        model: the network.
        check_pairs: pairs per batch of the stream-order check.
        check_batches: batches of the stream-order check.
        hw_decoder_loads: shares of the images for the GPU's JPEG engine.
        threads: numbers of DALI's worker threads.
        tests, prototypes: how many features are compared when scoring.
    """

    width: int
    height: int
    images: int
    resize_short: int
    image_size: int
    pairs: int
    groups: str
    model: ModelConfig
    check_pairs: int
    check_batches: int
    hw_decoder_loads: tuple[float, ...]
    threads: tuple[int, ...]
    tests: int
    prototypes: int


GPU_SIZE = Size(
    width=500,
    height=375,
    images=1024,
    resize_short=256,
    image_size=224,
    pairs=256,
    groups="16x32x1",
    model=ModelConfig(),
    check_pairs=128,
    check_batches=12,
    hw_decoder_loads=(0.65, 0.0, 0.25, 1.0),
    threads=(4, 8, 16),
    tests=4096,
    prototypes=54,
)
CPU_SIZE = Size(
    width=100,
    height=75,
    images=64,
    resize_short=48,
    image_size=32,
    pairs=8,
    groups="4x4x2",
    model=ModelConfig("test_resnet", embed_dim=64, depth=2, num_heads=2),
    check_pairs=8,
    check_batches=3,
    hw_decoder_loads=(0.0,),
    threads=(1, 2),
    tests=16,
    prototypes=8,
)


@dataclass(frozen=True)
class Node:
    """The machine under test.

    Attributes:
        device: where images are decoded and networks run.
        folder: for drawn packs, empty at the start.
        size: how much is measured on it.
    """

    device: Literal["cpu", "gpu"]
    folder: Path
    size: Size

    def decoding(self, **options: Any) -> Decoding:
        """Images of the measured size, decoded on the device; ``options`` as in ``InputConfig``."""
        config = InputConfig(**{"device": self.device, **options})
        return Decoding(Preprocessing(image_size=self.size.image_size), config)

    @property
    def num_cores(self) -> int:
        """How many cores this process may use."""
        return len(os.sched_getaffinity(0))


class Budget:
    """The time of one part, which begins now.

    Attributes:
        left_out: how many measurements found no time.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.left_out = 0

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def split(self, items: Sequence[T]) -> Iterator[tuple[T, float]]:
        """Each item with its share of the seconds that are left, until none are; the first item
        always comes."""
        for number, item in enumerate(items):
            if number and not self.seconds_left:
                self.left_out += len(items) - number
                return
            yield item, self.seconds_left / (len(items) - number)
