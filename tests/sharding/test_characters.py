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
