"""Random splits of a data set's classes into training, known and unknown ones."""

from dataclasses import dataclass

import numpy as np

REFERENCES = 20  # of each known class
CHOICE_SEED = 100  # of the split in whose training classes settings are chosen


@dataclass(frozen=True)
class Split:
    """Rows of a pack, each int64 and ascending, and the known class, 0 .. K-1, of references.

    Attributes:
        seed: of the split.
        training: images of the training classes.
        reference: references of the known classes.
        reference_class: the class of each.
        known: tests of the known classes.
        unknown: tests of the unknown classes.
    """

    seed: int
    training: np.ndarray
    reference: np.ndarray
    reference_class: np.ndarray
    known: np.ndarray
    unknown: np.ndarray

    @property
    def tests(self) -> np.ndarray:
        """Those of the known classes, then those of the unknown ones."""
        return np.concatenate((self.known, self.unknown))

    @property
    def evaluated(self) -> np.ndarray:
        """References and tests, ascending."""
        return np.sort(np.concatenate((self.reference, self.tests)))


def split_classes(labels: np.ndarray, seed: int, among: np.ndarray | None = None) -> Split:
    """A random split of the classes of ``labels``, int64 (N,), and of the known classes' images:
    three quarters of the classes for training, an eighth known, the others unknown.

    ``among``, rows, restricts it to the classes of these.
    """
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(labels if among is None else labels[among]))
    num_training, num_known = len(classes) * 3 // 4, len(classes) // 8
    training, known, unknown = np.split(classes, [num_training, num_training + num_known])
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in known]
    reference = np.sort(np.concatenate([rows[:REFERENCES] for rows in members]))
    return Split(
        seed=seed,
        training=np.flatnonzero(np.isin(labels, training)),
        reference=reference,
        reference_class=np.argsort(known)[np.searchsorted(np.sort(known), labels[reference])],
        known=np.sort(np.concatenate([rows[REFERENCES:] for rows in members])),
        unknown=np.flatnonzero(np.isin(labels, unknown)),
    )


def splits(labels: np.ndarray, count: int, *, choosing: bool) -> list[Split]:
    """``count`` splits of all classes or, to choose settings by, of some training classes only."""
    among = split_classes(labels, CHOICE_SEED).training if choosing else None
    return [split_classes(labels, seed, among) for seed in range(count)]
