"""The demo as a data set to pack: its images are drawn instead of read."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from sharding.sources import characters
from sharding.sources.dataset import Dataset, Sample

_ENCODED_SIZE = 3000  # bytes, approximately


@dataclass(frozen=True)
class DemoReader:
    """Draws the source ``<domain>/<class>/<sample>.jpg`` and encodes it."""

    seed: int

    def __call__(self, sample: Sample) -> bytes:
        domain, class_, number = sample.source.removesuffix(".jpg").split("/")
        encoded = io.BytesIO()
        image = characters.draw(self.seed, domain, characters.class_number(class_), int(number))
        image.save(encoded, "JPEG", quality=90)
        return encoded.getvalue()


def demo_dataset(seed: int) -> Dataset:
    """The demo data set drawn from ``seed``."""

    def samples() -> Iterator[Sample]:
        for drawing in characters.listing():
            class_ = characters.class_name(drawing.class_number)
            yield Sample(
                f"{drawing.domain}/{class_}/{drawing.sample:02d}.jpg",
                _ENCODED_SIZE,
                drawing.class_number,
                characters.DOMAINS.index(drawing.domain),
                characters.SPLITS.index(drawing.split),
            )

    return Dataset(
        "demo",
        tuple(characters.class_name(number) for number in range(characters.NUM_CLASSES)),
        characters.DOMAINS,
        characters.SPLITS,
        samples,
        DemoReader(seed),
        variant=f"seed {seed}" if seed else "",  # packs of seed 0 existed before variants
    )
