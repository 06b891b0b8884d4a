"""The demo set is a pure function of its seed, and its listing keeps the splits apart."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from sharding.sources import characters


def test_the_listing_is_stable_and_names_each_image_once() -> None:
    samples = list(characters.listing())
    assert samples == list(characters.listing())
    images = [(s.domain, s.class_number, s.sample) for s in samples]
    assert len(set(images)) == len(images)
    order = [
        (characters.DOMAINS.index(domain), number, sample) for domain, number, sample in images
    ]
    assert all(before < after for before, after in pairwise(order))


def test_training_never_meets_a_held_out_class_or_the_unseen_domain() -> None:
    splits_of = defaultdict(set)
    for sample in characters.listing():
        splits_of[sample.class_number].add(sample.split)
        if sample.split == "train":
            assert sample.domain != characters.UNSEEN_DOMAIN
    assert len(splits_of) == characters.NUM_CLASSES
    for number, splits in splits_of.items():
        held_out = number >= characters.NUM_TRAINING_CLASSES
        assert splits == ({"reference", "test"} if held_out else {"train"})


def test_each_held_out_class_has_references_and_tests_in_every_domain() -> None:
    counts = Counter((s.domain, s.class_number, s.split) for s in characters.listing())
    for domain in characters.DOMAINS:
        for number in range(characters.NUM_TRAINING_CLASSES, characters.NUM_CLASSES):
            assert counts[domain, number, "reference"] == characters.NUM_REFERENCES
            tests = characters.HELD_OUT_SAMPLES - characters.NUM_REFERENCES
            assert counts[domain, number, "test"] == tests


def test_class_names_sort_in_the_order_of_their_numbers() -> None:
    names = [characters.class_name(number) for number in range(characters.NUM_CLASSES)]
    assert len(set(names)) == characters.NUM_CLASSES
    assert names == sorted(names)


def test_no_two_classes_have_the_same_strokes() -> None:
    every = {frozenset(characters.strokes_of(0, n)) for n in range(characters.NUM_CLASSES)}
    assert len(every) == characters.NUM_CLASSES


def test_each_held_out_class_shares_all_strokes_but_one_with_a_training_class() -> None:
    training = [set(characters.strokes_of(0, n)) for n in range(characters.NUM_TRAINING_CLASSES)]
    for number in range(characters.NUM_TRAINING_CLASSES, characters.NUM_CLASSES):
        held_out = set(characters.strokes_of(0, number))
        assert max(len(held_out & other) for other in training) == len(held_out) - 1


@pytest.mark.parametrize("domain", characters.DOMAINS)
def test_an_image_depends_on_its_arguments_only(domain: str) -> None:
    first = characters.draw(3, domain, 7, 1)
    characters.draw(3, domain, 8, 0)
    again = characters.draw(3, domain, 7, 1)
    assert first.mode == "RGB"
    assert first.size == (characters.SIZE, characters.SIZE)
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("domain", characters.DOMAINS)
@pytest.mark.parametrize(
    "other", [(4, 7, 1), (3, 8, 1), (3, 7, 2)], ids=["seed", "class", "sample"]
)
def test_each_argument_changes_the_image(domain: str, other: tuple[int, int, int]) -> None:
    pixels = np.asarray(characters.draw(3, domain, 7, 1))
    seed, number, sample = other
    assert not np.array_equal(pixels, np.asarray(characters.draw(seed, domain, number, sample)))


# The mean color (R, G, B) of sample 11 of class 1600, drawn from seed 0 by `characters.draw` with
# NumPy 2 and Pillow 13 when classes became combinations of an alphabet's strokes. Exact pixels may
# differ with the processor; another sequence of random numbers gives another color.
MEAN_COLORS = {
    "flat": (58.11, 78.70, 139.45),
    "photo": (130.86, 193.96, 37.59),
    "sketch": (217.17, 216.65, 216.44),
    "painting": (172.99, 186.80, 90.37),
}


def test_the_demo_of_seed_0_stays_the_same() -> None:
    assert characters.strokes_of(0, 0) == (1, 5, 7, 9)
    assert characters.strokes_of(0, 1600) == (3, 7, 17, 22)
    for domain, color in MEAN_COLORS.items():
        pixels = np.asarray(characters.draw(0, domain, 1600, 11))
        assert pixels.mean((0, 1)) == pytest.approx(color, abs=0.2)
