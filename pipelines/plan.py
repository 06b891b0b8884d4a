"""The endless sequence of training pairs as a pure function of (seed, position)."""

from dataclasses import dataclass

import numpy as np

from pipelines.hashing import below, draw, stream
from pipelines.images_by_class import ImagesByClass
from pipelines.permutation import permute

_ANCHORS, _PAIRS = 1, 2  # the purpose of a stream, hashed into its key
# The draws of a pair's stream; substitutes take all from the last on.
_PARTNER_CLASS, _PARTNER_IMAGE, _AUGMENT_ANCHOR, _AUGMENT_PARTNER, _SUBSTITUTE = range(5)


@dataclass(frozen=True)
class Pairs:
    """Consecutive pairs of the plan.

    Attributes:
        anchor: int64 (n,), images, as indices into the plan's labels.
        partner: int64 (n,), indices as well; an image is never its own partner.
        different: bool (n,), True where anchor and partner differ in class.
        key: uint64 (n,), the pair's random stream, from which partner and augmentation are drawn.
    """

    anchor: np.ndarray
    partner: np.ndarray
    different: np.ndarray
    key: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """int64 (2n,), the anchors, then the partners."""
        return np.concatenate([self.anchor, self.partner])

    @property
    def augmentation_keys(self) -> np.ndarray:
        """uint64 (2n,), a random stream for the augmentation of each of ``images``."""
        return np.concatenate([draw(self.key, _AUGMENT_ANCHOR), draw(self.key, _AUGMENT_PARTNER)])

    @property
    def left(self) -> np.ndarray:
        """int64 (n,), the place in ``images`` of each pair's anchor."""
        return np.arange(len(self.key))

    @property
    def right(self) -> np.ndarray:
        """int64 (n,), the place in ``images`` of each pair's partner."""
        return len(self.key) + self.left

    def substitute_bits(self, item: int, attempt: int) -> np.ndarray:
        """uint64 (1,), the draw that replaces ``images[item]``; each ``attempt``, counted from 0,
        gives a new one."""
        side, pair = divmod(item, len(self.key))
        return draw(self.key[pair : pair + 1], _SUBSTITUTE + 2 * attempt + side)


class PairPlan:
    """Which images are compared at each position of an endless sequence of pairs.

    An image is known by its index 0 .. N-1 in ``labels``.

    An epoch has one slot for each (anchor, role). With ``balanced`` each class has as many anchors
    as the largest class has images: each of its images once, and the rest drawn from it uniformly.
    Without, each image is an anchor once. Each anchor has one positive role, where its partner is
    another image of its class, and ``num_negatives`` negative ones, where a class other than its
    own is drawn uniformly, then an image of that class. The slots of an epoch are visited in a
    keyed random order, each once.

    Weights scale the number of anchors of a class: with ``balanced`` by the mean weight of its
    images; without, a class has as many anchors as the sum of their weights. Both are rounded, and
    a class has at least one anchor. Where a class has fewer anchors than images, or is not
    balanced, its images take turns from epoch to epoch.

    Args:
        labels: (N,) integers, the class of each image.
        weights: float (N,), the weight of each image, above 0; None for 1.
        seed: selects the sequence.
        num_negatives: negative pairs for each positive one (ReSeND, ECCV 2022, section 4: 20).
        balanced: whether each class has the same number of anchors, apart from the weights.

    Attributes:
        num_classes: C, the number of different labels.
        classes: int32 (N,), the class of each image, 0 .. C-1 in the order of the labels.
        anchors_per_epoch: the anchors of an epoch, each of which has one slot for each role.
        images_per_position, pairs_per_position: what a position of the sequence holds.

    Raises:
        PackError: fewer than two classes, or a class with a single image, which has no positive.
    """

    images_per_position = 2
    pairs_per_position = 1

    def __init__(
        self,
        labels: np.ndarray,
        weights: np.ndarray | None = None,
        *,
        seed: int,
        num_negatives: int = 20,
        balanced: bool = True,
    ) -> None:
        self._images = ImagesByClass(labels)
        self.num_classes, self.classes = self._images.num_classes, self._images.classes
        self._counts = counts = self._images.counts
        self.seed = seed
        self.num_negatives = num_negatives
        self._balanced = balanced
        total = counts if weights is None else np.bincount(self.classes, weights)  # (C,)
        anchors = counts.max() * (total / counts) if balanced else total
        self._anchors = np.maximum(np.rint(anchors), 1).astype(np.int64)  # (C,)
        self._first_anchor = np.concatenate([[0], np.cumsum(self._anchors)[:-1]])  # (C,)
        self.anchors_per_epoch = int(self._anchors.sum())

    @property
    def pairs_per_epoch(self) -> int:
        """The slots of an epoch."""
        return self.anchors_per_epoch * (1 + self.num_negatives)

    def pairs(self, start: int, count: int) -> Pairs:
        """The pairs at positions ``[start, start + count)``; any ``start`` costs the same."""
        # Cut the endless sequence into epochs: (n,) each.
        position = np.arange(start, start + count, dtype=np.int64)
        epoch, offset = np.divmod(position, self.pairs_per_epoch)
        # Visit the slots of each epoch in random order: (n,).
        slot = permute(offset, self.pairs_per_epoch, self.seed, epoch)
        # Split each slot into an anchor of the epoch and its role; role 0 is the positive one.
        anchor_number, role = np.divmod(slot, 1 + self.num_negatives)
        different = role > 0
        # Give each pair its own random stream: (n,).
        key = stream(self.seed, epoch, slot, np.array(_PAIRS))
        # Choose a class and a member of it for both images: (n,) each.
        anchor_class, anchor_member = self._anchor(epoch, anchor_number)
        partner_class, partner_member = self._partner(key, anchor_class, anchor_member, different)
        return Pairs(
            anchor=self._images.image(anchor_class, anchor_member),
            partner=self._images.image(partner_class, partner_member),
            different=different,
            key=key,
        )

    def same_class(self, image: int, bits: np.ndarray) -> int:
        """An image of the class of ``image``, which may be the same, by one draw: uint64 (1,)."""
        return self._images.same_class(image, bits)

    def _anchor(self, epoch: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class and member of each anchor ``number`` of its ``epoch``; all arrays are (n,)."""
        class_ = np.searchsorted(self._first_anchor, number, side="right") - 1
        count, anchors = self._counts[class_], self._anchors[class_]
        turn = number - self._first_anchor[class_]
        # The images of the class in turn, from one epoch to the next.
        member = (epoch * anchors + turn) % count
        if self._balanced:
            # Each image once, then drawn ones; the stream's key serves as its only draw.
            key = stream(self.seed, epoch, number, np.array(_ANCHORS))
            each_once = np.where(turn < count, turn, below(key, count))
            member = np.where(anchors >= count, each_once, member)
        return class_, member

    def _partner(
        self,
        key: np.ndarray,
        anchor_class: np.ndarray,
        anchor_member: np.ndarray,
        different: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class and member of each partner; all arrays are (n,)."""
        # A negative's class: draw among one class fewer and step over the anchor's.
        other_class = below(draw(key, _PARTNER_CLASS), self.num_classes - 1)
        other_class += other_class >= anchor_class
        partner_class = np.where(different, other_class, anchor_class)
        # A positive's image: draw among one member fewer and step over the anchor.
        choices = self._counts[partner_class] - ~different
        partner_member = below(draw(key, _PARTNER_IMAGE), choices)
        partner_member += ~different & (partner_member >= anchor_member)
        return partner_class, partner_member
