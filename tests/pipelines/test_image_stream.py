"""Images of any source in batches; those that cannot be read are left out."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pipelines.image_stream import EncodedImage, ImageStream, UnreadableImage
from pipelines.loader import ImageLoader
from pipelines.pack import Pack
from tests.pipelines.loading import decoding


@dataclass
class Sample:
    """The image in a row of a pack; ``content`` takes the place of its bytes."""

    pack: Pack
    row: int
    content: bytes | None = None

    @property
    def name(self) -> str:
        return str(self.row)

    def read(self) -> EncodedImage:
        if self.content == b"":
            raise UnreadableImage(f"row {self.row} is empty")
        index = self.pack.index
        content = self.content or self.pack.read(np.array([self.row]))[0].tobytes()
        return EncodedImage(content, int(index.width[self.row]), int(index.height[self.row]))


@pytest.fixture
def samples(pack_path):
    pack = Pack(pack_path)
    return [Sample(pack, row) for row in range(20)]


def streamed(stream):
    """The items and the images of all batches."""
    items, images = zip(*((batch.items, batch.images) for batch in stream))
    return np.concatenate(items).tolist(), torch.cat(images)


def without_pixels(sample):
    """A JPEG up to its frame header, which DALI cannot decode."""
    content = sample.read().content
    return content[: content.index(b"\xff\xc0") + 19]


def test_a_stream_of_a_pack_gives_what_its_loader_gives(samples):
    items, images = streamed(ImageStream(samples, decoding(), batch_size=7))
    loader = ImageLoader(samples[0].pack, np.arange(20), decoding(), batch_size=7)
    assert items == list(range(20))
    assert torch.equal(images, torch.cat([batch.images for batch in loader]))


def test_unreadable_images_are_left_out_wherever_they_are(samples):
    _, whole = streamed(ImageStream(samples, decoding(), batch_size=4))
    unread = [0, 4, 5, 6, 7, 13, 19]
    for row in unread:
        samples[row].content = b""
    stream = ImageStream(samples, decoding(), batch_size=4)
    items, images = streamed(stream)
    assert items == [row for row in range(20) if row not in unread]
    assert torch.equal(images, whole[items])
    assert stream.skipped == {row: f"row {row} is empty" for row in unread}


@pytest.mark.parametrize("rows", [[0], [2, 3], [8, 9, 10, 11], [18, 19]])
def test_images_that_dali_cannot_decode_are_left_out(samples, rows):
    _, whole = streamed(ImageStream(samples, decoding(), batch_size=4))
    for row in rows:
        samples[row].content = without_pixels(samples[row])
    stream = ImageStream(samples, decoding(), batch_size=4)
    items, images = streamed(stream)
    assert items == [row for row in range(20) if row not in rows]
    assert torch.equal(images, whole[items])
    assert sorted(stream.skipped) == rows


def test_a_stream_without_a_readable_image_has_no_batch(samples):
    for sample in samples:
        sample.content = b""
    stream = ImageStream(samples, decoding(), batch_size=4)
    assert list(stream) == []
    assert len(stream.skipped) == 20


def test_an_error_in_reading_that_is_a_bug_is_not_taken_for_an_unreadable_image(samples):
    samples[3].row = 10**6
    with pytest.raises(IndexError):
        list(ImageStream(samples, decoding(), batch_size=4))
