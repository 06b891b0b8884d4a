"""The endless sequence of training pairs as a pure function of (seed, position)."""

from dataclasses import dataclass

import numpy as np

from pipelines.hashing import below, draw, stream
from pipelines.permutation import permute
from runtime.errors import PackError

_ANCHORS, _PAIRS = 1, 2  # what a stream key is for
# The draws of a pair's stream; substitutes take the rest.
_PARTNER_CLASS, _PARTNER_IMAGE, _AUGMENT_ANCHOR, _AUGMENT_PARTNER, _SUBSTITUTE = range(5)


@dataclass(frozen=True)
class Pairs:
    """Consecutive pairs of the plan.

    Attributes:
        anchor: int64 (n,), positions in the plan's labels.
        partner: int64 (n,), positions in the plan's labels, never equal to the anchor.
        different: bool (n,), True where anchor and partner are of different classes.
        key: uint64 (n,), the pair's random stream, from which its augmentation is drawn.
    """

    anchor: np.ndarray
    partner: np.ndarray
    different: np.ndarray
    key: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """int64 (2n,), the anchors and then the partners."""
        return np.concatenate([self.anchor, self.partner])

    @property
    def augmentation_keys(self) -> np.ndarray:
        """uint64 (2n,), a random stream for the augmentation of each of ``images``."""
        return np.concatenate([draw(self.key, _AUGMENT_ANCHOR), draw(self.key, _AUGMENT_PARTNER)])


class PairPlan:
    """Which images are compared at each position of an endless sequence of pairs.

    An epoch has one slot for each (anchor, role). With ``balanced`` each class has as many anchors
    as the largest class has images: each of its images once, and the rest drawn from it uniformly.
    Without, each image is an anchor once. Each anchor has one positive role, another image of its
    class, and ``num_negatives`` negative ones: a class other than its own drawn uniformly, then an
    image of that class. The slots of an epoch are visited in a keyed random order, each once.

    Args:
        labels: (N,) integers, the class of each image.
        seed: selects the sequence.
        num_negatives: negative pairs for each positive one (ReSeND, ECCV 2022, section 4: 20).
        balanced: whether each class has the same number of anchors.

    Attributes:
        num_classes: C, the number of different labels.
        classes: int32 (N,), the class of each image, 0 .. C-1 in the order of the labels.
        anchors_per_epoch: the slots of an epoch, each of which has one pair for each role.

    Raises:
        PackError: fewer than two classes, or a class with a single image, which has no positive.
    """

    def __init__(
        self, labels: np.ndarray, *, seed: int, num_negatives: int = 20, balanced: bool = True
    ) -> None:
        values, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if len(values) < 2:
            raise PackError(
                f"pairs need at least 2 classes, the selection has {len(values)}; "
                "select more domains, classes or splits"
            )
        if counts.min() < 2:
            raise PackError(
                f"a positive pair needs 2 images of a class, label {values[counts.argmin()]} "
                "has 1; leave that class out of the selection"
            )
        self.seed = seed
        self.num_negatives = num_negatives
        self.num_classes = len(values)
        self.classes = classes.astype(np.int32)
        self._members = np.argsort(self.classes, kind="stable").astype(np.int32)
        self._counts = counts.astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self._anchors_per_class = int(counts.max()) if balanced else None
        self.anchors_per_epoch = self.num_classes * int(counts.max()) if balanced else len(labels)

    @property
    def pairs_per_epoch(self) -> int:
        return self.anchors_per_epoch * (1 + self.num_negatives)

    def pairs(self, start: int, count: int) -> Pairs:
        """The pairs at positions ``[start, start + count)``; any ``start`` costs the same."""
        epoch, position = np.divmod(
            np.arange(start, start + count, dtype=np.int64), self.pairs_per_epoch
        )
        slot = permute(position, self.pairs_per_epoch, self.seed, epoch)
        anchor_slot, role = np.divmod(slot, 1 + self.num_negatives)
        different = role > 0
        key = stream(self.seed, epoch, slot, np.array(_PAIRS))
        anchor_class, anchor_place = self._anchor(epoch, anchor_slot)
        partner_class, partner_place = self._partner(key, anchor_class, anchor_place, different)
        return Pairs(
            anchor=self._image(anchor_class, anchor_place),
            partner=self._image(partner_class, partner_place),
            different=different,
            key=key,
        )

    def substitute(self, position: int, key: np.uint64, side: int, attempt: int) -> int:
        """Another image, as a position, of the class of the image at ``position``.

        Args:
            position: the image to be replaced.
            key: its pair's stream.
            side: 0 for the anchor, 1 for the partner.
            attempt: counts from 0; each gives another draw, which may repeat an image.
        """
        class_ = self.classes[position]
        bits = draw(np.array([key]), _SUBSTITUTE + 2 * attempt + side)
        place = below(bits, self._counts[class_])
        return int(self._image(class_, place)[0])

    def _image(self, class_: np.ndarray, place: np.ndarray) -> np.ndarray:
        return self._members[self._starts[class_] + place].astype(np.int64)

    def _anchor(self, epoch: np.ndarray, slot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._anchors_per_class is None:
            class_ = self.classes[self._members[slot]].astype(np.int64)
            return class_, slot - self._starts[class_]
        class_, place = np.divmod(slot, self._anchors_per_class)
        count = self._counts[class_]
        key = stream(self.seed, epoch, slot, np.array(_ANCHORS))
        return class_, np.where(place < count, place, below(key, count))

    def _partner(
        self, key: np.ndarray, class_: np.ndarray, place: np.ndarray, different: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        other_class = below(draw(key, _PARTNER_CLASS), self.num_classes - 1)
        other_class += other_class >= class_
        partner_class = np.where(different, other_class, class_)
        # A positive leaves its own image out: draw among one image fewer and step over it.
        choices = self._counts[partner_class] - ~different
        partner_place = below(draw(key, _PARTNER_IMAGE), choices)
        partner_place += ~different & (partner_place >= place)
        return partner_class, partner_place
