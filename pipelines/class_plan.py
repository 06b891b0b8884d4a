"""Groups of classes, and the pairs among their images, as a pure function of (seed, position)."""

from dataclasses import dataclass

import numpy as np

from pipelines.config import SamplingConfig
from pipelines.hashing import below, draw, stream
from pipelines.images_by_class import ImagesByClass
from pipelines.permutation import permute
from runtime.errors import PackError

# The purpose of a stream, hashed into its key.
_CLASSES, _MEMBERS, _IMAGE, _OTHER_DOMAIN, _POSITIVE = range(3, 8)
_AUGMENT, _SUBSTITUTE = range(
    2
)  # draws of an image's stream; substitutes take all from the last on
# Draws of a positive pair's stream; its negatives take two each from the last on.
_PARTNER, _MEAN_OF, _NEGATIVES = range(3)


@dataclass(frozen=True)
class GroupPairs:
    """The images of consecutive groups and the pairs among them, each positive pair followed by its
    R negative ones.

    Attributes:
        images: int64 (n,), indices into the plan's labels: for each group P classes, for each
            class K images.
        key: uint64 (n,), the random stream of each image.
        left: int64 (p,), the place in ``images`` of each pair's first image.
        right: int64 (p,), that of its partner; ``place + (s - 1) * n`` stands for the mean of s
            images of the class, from that place on, the class's first following its last.
        different: bool (p,), True where the classes differ.
    """

    images: np.ndarray
    key: np.ndarray
    left: np.ndarray
    right: np.ndarray
    different: np.ndarray

    @property
    def augmentation_keys(self) -> np.ndarray:
        """uint64 (n,), a random stream for the augmentation of each of ``images``."""
        return draw(self.key, _AUGMENT)

    def substitute_bits(self, item: int, attempt: int) -> np.ndarray:
        """uint64 (1,), the draw that replaces ``images[item]``; each ``attempt``, counted from 0,
        gives a new one."""
        return draw(self.key[item : item + 1], _SUBSTITUTE + attempt)


class ClassPlan:
    """Which images are decoded and which pairs of them are formed in an endless sequence of groups.

    An epoch has ``ceil(C / P)`` groups. They take the C classes in a keyed random order, each once;
    the last group is filled up with the epoch's first classes. A class is never twice in a group.

    Each class has an endless sequence of its images, in keyed random orders of all of them that
    follow one another; each is filled up with its first images to a multiple of K. Each epoch takes
    the next K images. A class that fills up a group takes them from a second such sequence. So each
    image of a class is shown before any is repeated, and an image is twice in a group only if its
    class has fewer than K images.

    All choices of pairs are hashes of (seed, group, pair).

    Args:
        labels: (N,) integers, the class of each image.
        domains: (N,) integers, the domain of each image.
        sampling: P, K, R and the options; its ``groups`` are not used.
        seed: selects the sequence.

    Attributes:
        num_classes: C, the number of different labels.
        classes: int32 (N,), the class of each image, 0 .. C-1 in the order of the labels.
        num_small: the classes with fewer than K images.
        images_per_position, pairs_per_position: what a group holds.

    Raises:
        PackError: fewer than P classes, a class with a single image, or ``cross_domain`` with one
            domain.
    """

    def __init__(
        self, labels: np.ndarray, domains: np.ndarray, sampling: SamplingConfig, *, seed: int
    ) -> None:
        if sampling.cross_domain and (domains == domains[0]).all():
            raise PackError(
                "data.sampling.cross_domain needs images of several domains, the selection has "
                "one; select more domains or set it to false"
            )
        self._images = ImagesByClass(labels, domains)
        self.num_classes, self.classes = self._images.num_classes, self._images.classes
        if sampling.classes > self.num_classes:
            raise PackError(
                f"data.sampling.classes is {sampling.classes}, the selection has "
                f"{self.num_classes} classes; reduce it, or select more classes"
            )
        self.num_small = int((self._images.counts < sampling.images).sum())
        self.images_per_position = sampling.images_per_group
        self.pairs_per_position = sampling.pairs_per_group
        self._sampling, self._seed = sampling, seed
        self._domains = np.unique(domains, return_inverse=True)[1]  # (N,), 0 .. D-1
        if sampling.cross_domain:
            num_domains = int(self._domains.max()) + 1
            number = self.classes.astype(np.int64) * num_domains + self._domains
            per_domain = np.bincount(number, minlength=self.num_classes * num_domains)
            self._per_domain = per_domain.reshape(-1, num_domains)  # images of each class, (C, D)
        self._groups_per_epoch = -(-self.num_classes // sampling.classes)

    @property
    def pairs_per_epoch(self) -> int:
        """The pairs of the groups in which each class has been drawn."""
        return self._groups_per_epoch * self.pairs_per_position

    def pairs(self, start: int, count: int) -> GroupPairs:
        """The groups ``[start, start + count)``; any ``start`` costs the same."""
        group = np.arange(start, start + count, dtype=np.int64)
        images = self._draw_images(group)  # (G, P, K)
        place = np.arange(self.images_per_position)
        key = stream(self._seed, group[:, None], place, np.array(_IMAGE))  # (G, P * K)
        left, right, different = self._pair_up(group, images)
        return GroupPairs(images.ravel(), key.ravel(), left, right, different)

    def same_class(self, image: int, bits: np.ndarray) -> int:
        """An image of the class of ``image``, which may be the same, by one draw: uint64 (1,)."""
        return self._images.same_class(image, bits)

    def _draw_images(self, group: np.ndarray) -> np.ndarray:
        """int64 (G, P, K), the images of groups (G,)."""
        num_classes, num_images = self._sampling.classes, self._sampling.images
        epoch, number = np.divmod(group[:, None], self._groups_per_epoch)  # (G, 1)
        slot = number * num_classes + np.arange(num_classes)  # (G, P), of the epoch
        filling = slot >= self.num_classes
        epoch = np.broadcast_to(epoch, slot.shape)
        class_ = self._permute(
            slot % self.num_classes, self.num_classes, stream(self._seed, epoch, np.array(_CLASSES))
        )
        # Each class's next K images: the turn of its present order, and their members.
        count = self._images.counts[class_]  # (G, P)
        order, turn = np.divmod(epoch, -(-count // num_images))
        key = stream(self._seed, class_, filling, order, np.array(_MEMBERS))
        place = turn[..., None] * num_images + np.arange(num_images)  # (G, P, K)
        count, key = (np.broadcast_to(x[..., None], place.shape) for x in (count, key))
        member = self._permute(place % count, count, key)
        images = self._images.image(class_[..., None], member)
        return self._of_several_domains(group, images) if self._sampling.cross_domain else images

    def _of_several_domains(self, group: np.ndarray, images: np.ndarray) -> np.ndarray:
        """``images`` with the last of a class replaced by one of another domain, where all K of
        them are of one and the class has several."""
        domain = self._domains[images]  # (G, P, K)
        class_ = self.classes[images[..., 0]]  # (G, P)
        size, own = self._images.counts[class_], self._per_domain[class_, domain[..., 0]]
        # Members are in the order of their domains: those of one domain are a range of them.
        start = self._per_domain.cumsum(1)[class_, domain[..., 0]] - own
        place = np.arange(images.shape[1])
        bits = stream(self._seed, group[:, None], place, np.array(_OTHER_DOMAIN))
        rank = np.minimum(_outside(bits, start, own, size), size - 1)
        alone = (domain == domain[..., :1]).all(-1) & (own < size)
        last = np.where(alone, self._images.image(class_, rank), images[..., -1])
        return np.concatenate([images[..., :-1], last[..., None]], axis=-1)

    def _pair_up(
        self, group: np.ndarray, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Left and right places and whether they differ, (p,) each, of ``images`` (G, P, K)."""
        num_classes, num_images = self._sampling.classes, self._sampling.images
        first = np.arange(images.size).reshape(images.shape)[..., :1]  # (G, P, 1), of each class
        # The positive pairs: anchor and partner by their places in the class, (G, P, Q).
        anchor, partner = np.triu_indices(num_images, 1)
        number = np.arange(num_classes)[:, None] * len(anchor) + np.arange(len(anchor))  # (P, Q)
        key = stream(self._seed, group[:, None, None], number, np.array(_POSITIVE))
        anchor = np.broadcast_to(anchor, key.shape)
        if self._sampling.cross_domain:
            partner = self._cross_domain(draw(key, _PARTNER), images, anchor, partner)
        # Each negative pair has one of the two images, and a partner of another class: (..., R).
        bits = draw(key[..., None], _NEGATIVES + np.arange(2 * self._sampling.negatives))
        side = below(bits[..., ::2], 2)
        known = first[..., None] + np.where(
            side == 0, anchor[..., None], np.expand_dims(partner, -1)
        )
        other = self._other_class(bits[..., 1::2], images, known)
        left = np.concatenate([(first + anchor)[..., None], known], axis=-1)  # (G, P, Q, 1 + R)
        right = np.concatenate([(first + partner)[..., None], other], axis=-1)
        if self._sampling.mean_partners:
            # As many images as follow the partner before the anchor; the same for the negatives.
            number = 1 + below(draw(key, _MEAN_OF), (anchor - partner) % num_images)
            right += (number[..., None] - 1) * images.size
        different = np.broadcast_to(np.arange(left.shape[-1]) > 0, left.shape)
        return left.ravel(), right.ravel(), different.ravel()

    def _cross_domain(
        self, bits: np.ndarray, images: np.ndarray, anchor: np.ndarray, partner: np.ndarray
    ) -> np.ndarray:
        """The places (G, P, Q) of ``partner`` in the class, redrawn where its domain is that of the
        anchor and the class has another."""
        domain = self._domains[images]  # (G, P, K)
        own = np.take_along_axis(domain, anchor, -1)[..., None]  # (G, P, Q, 1)
        before = (domain[..., None, :] < own).sum(-1)
        same = (domain[..., None, :] == own).sum(-1)
        order = np.argsort(domain, axis=-1, kind="stable")
        rank = _outside(bits, before, same, np.array(domain.shape[-1]))
        # Where all are of one domain the rank is beyond the last, and not used.
        redrawn = np.take_along_axis(order, np.minimum(rank, domain.shape[-1] - 1), -1)
        alike = domain[..., partner] == own[..., 0]
        return np.where(alike & (same < domain.shape[-1]), redrawn, partner)

    def _other_class(self, bits: np.ndarray, images: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Places of images whose class is not that of the places ``known``, in the same group."""
        per_class, per_group = self._sampling.images, self.images_per_position
        group, place = np.divmod(known, per_group)
        class_ = place // per_class
        own = np.array(per_class)
        anywhere = group * per_group + _outside(bits, class_ * per_class, own, np.array(per_group))
        if not self._sampling.same_domain_negatives:
            return anywhere
        # All places by group, domain and class: those of one domain of a group are a range, in
        # which those of one class are a range.
        num_domains = self._domains.max() + 1
        domain = self._domains[images.ravel()]
        number = np.arange(images.size)
        of_place = (number // per_group * num_domains + domain) * per_group + number % per_group
        order = np.argsort(of_place)
        ordered = of_place[order]
        of_domain = (group * num_domains + domain[known]) * per_group
        start = np.searchsorted(ordered, of_domain)
        end = np.searchsorted(ordered, of_domain + per_group)
        own_start = np.searchsorted(ordered, of_domain + class_ * per_class)
        own_end = np.searchsorted(ordered, of_domain + (class_ + 1) * per_class)
        own = own_end - own_start
        rank = start + _outside(bits, own_start - start, own, end - start)
        same = order[np.minimum(rank, len(order) - 1)]
        return np.where(end - start > own, same, anywhere)

    def _permute(
        self, elements: np.ndarray, size: int | np.ndarray, keys: np.ndarray
    ) -> np.ndarray:
        """``permute`` for arrays of any shape, all of the same one."""
        flat = size if isinstance(size, int) else size.ravel()
        moved = permute(elements.ravel(), flat, self._seed, keys.ravel())
        return moved.reshape(elements.shape)


def _outside(
    bits: np.ndarray, start: np.ndarray, count: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Uniform in ``[0, size)`` without ``[start, start + count)``, which must not be all of it to
    mean anything."""
    drawn = below(bits, size - count)
    return drawn + (drawn >= start) * count
