"""The images of each class, and one of them by its number in the class."""

import numpy as np

from pipelines.hashing import below
from runtime.errors import PackError


class ImagesByClass:
    """N images sorted by class.

    An image is known by its index 0 .. N-1 in ``labels``, and within its class by its member
    number, which counts the images of the class by domain and then in that order.

    Args:
        labels: (N,) integers, the class of each image.
        domains: (N,) integers, the domain of each image; None for a single one.

    Attributes:
        num_classes: C, the number of different labels.
        classes: int32 (N,), the class of each image, 0 .. C-1 in the order of the labels.
        counts: int64 (C,), the images of each class.

    Raises:
        PackError: fewer than two classes, or a class with a single image, which has no positive.
    """

    def __init__(self, labels: np.ndarray, domains: np.ndarray | None = None) -> None:
        # The images sorted by class: class c has counts[c] of them, from starts[c] on.
        by_class = np.lexsort((labels,) if domains is None else (domains, labels))  # (N,), stable
        ordered = labels[by_class]  # (N,)
        starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))  # (C,)
        counts = np.diff(starts, append=len(labels))  # (C,)
        if len(counts) < 2:
            raise PackError(
                f"pairs need at least 2 classes, the selection has {len(counts)}; "
                "select more domains, classes or splits"
            )
        if counts.min() < 2:
            raise PackError(
                "a positive pair needs 2 images of a class, label "
                f"{ordered[starts[counts.argmin()]]} has 1; leave that class out of the selection"
            )
        self.num_classes = len(counts)
        self.classes = np.empty(len(labels), dtype=np.int32)
        self.classes[by_class] = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.counts = counts
        self._by_class, self._starts = by_class.astype(np.int32), starts

    def image(self, class_: np.ndarray, member: np.ndarray) -> np.ndarray:
        """int64, the images with these member numbers in their classes, broadcast together."""
        return self._by_class[self._starts[class_] + member].astype(np.int64)

    def same_class(self, image: int, bits: np.ndarray) -> int:
        """An image of the class of ``image``, which may be the same, by one draw: uint64 (1,)."""
        class_ = self.classes[image]
        return int(self.image(class_, below(bits, self.counts[class_]))[0])
