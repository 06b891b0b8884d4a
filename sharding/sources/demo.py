"""The demo as a data set to pack: its images are drawn where others are read."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from sharding.sources import characters as demo
from sharding.sources.dataset import Dataset, Sample

_ENCODED_SIZE = 3000  # bytes, about


@dataclass(frozen=True)
class DemoReader:
    """Draws the source ``<domain>/<class>/<sample>.jpg`` and encodes it."""

    seed: int

    def __call__(self, source: str) -> bytes:
        domain, class_, sample = source.removesuffix(".jpg").split("/")
        encoded = io.BytesIO()
        number = demo.class_number(class_)
        demo.draw(self.seed, domain, number, int(sample)).save(encoded, "JPEG", quality=90)
        return encoded.getvalue()


def demo_dataset(seed: int) -> Dataset:
    """The demo data set of ``seed``."""

    def samples() -> Iterator[Sample]:
        for drawn in demo.listing():
            yield Sample(
                f"{drawn.domain}/{demo.class_name(drawn.class_number)}/{drawn.sample:02d}.jpg",
                _ENCODED_SIZE,
                drawn.class_number,
                demo.DOMAINS.index(drawn.domain),
                demo.SPLITS.index(drawn.split),
            )

    classes = tuple(demo.class_name(number) for number in range(demo.NUM_CLASSES))
    return Dataset("demo", classes, demo.DOMAINS, demo.SPLITS, samples, DemoReader(seed))
