from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.class_plan import ClassPlan
from pipelines.config import SamplingConfig
from pipelines.permutation import permute
from runtime.errors import PackError


@st.composite
def plans(draw, **fixed):
    """A plan and its labels and domains."""
    sizes = draw(st.lists(st.integers(2, 9), min_size=2, max_size=9))
    images = draw(st.integers(2, 5))
    options = {
        "classes": draw(st.integers(2, len(sizes))),
        "images": images,
        "negatives": draw(st.integers(1, 4)),
        "cross_domain": draw(st.booleans()),
        "same_domain_negatives": draw(st.booleans()),
        "mean_partners": draw(st.booleans()) and images > 2,
    } | fixed
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    domains = rng.integers(0, 3, len(labels))
    domains[:2] = 0, 1
    sampling = SamplingConfig("classes", **options)
    return ClassPlan(labels, domains, sampling, seed=draw(st.integers(0, 2**63))), labels, domains


def groups_of(plan, start, count):
    """The images of groups, (count, P, K)."""
    sampling = plan._sampling
    images = plan.pairs(start, count).images
    return images.reshape(count, sampling.classes, sampling.images)


starts = st.integers(0, 2**40)


@settings(max_examples=100, deadline=None)
@given(plans(), starts)
def test_a_group_has_p_classes_and_k_images_of_each(drawn, start):
    plan, labels, _ = drawn
    for group in groups_of(plan, start, 3):
        assert (labels[group] == labels[group[:, :1]]).all()
        assert len(set(labels[group[:, 0]])) == len(group)


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(0, 2**20))
def test_an_epoch_has_each_class_once_and_fills_its_last_group(drawn, epoch):
    plan, labels, _ = drawn
    groups = -(-plan.num_classes // plan._sampling.classes)
    classes = labels[groups_of(plan, epoch * groups, groups)[..., 0]].ravel()
    assert len(set(classes[: plan.num_classes])) == plan.num_classes
    assert len(classes) == groups * plan._sampling.classes


@settings(max_examples=60, deadline=None)
@given(plans(cross_domain=False), st.integers(0, 2**20))
def test_each_image_of_a_class_is_drawn_before_any_is_repeated(drawn, turn):
    plan, labels, _ = drawn
    groups = -(-plan.num_classes // plan._sampling.classes)
    label = labels[0]
    count, num_images = (labels == label).sum(), plan._sampling.images
    epochs = -(-count // num_images)
    images = groups_of(plan, turn * epochs * groups, epochs * groups)
    images = images.reshape(epochs, -1, num_images)[:, : plan.num_classes]  # without the filling
    of_class = images[labels[images[..., 0]] == label].ravel()
    assert len(set(of_class[:count])) == count
    assert len(set(of_class)) == count


@settings(max_examples=60, deadline=None)
@given(plans(), starts)
def test_an_image_is_twice_in_a_group_only_if_its_class_is_small(drawn, start):
    plan, labels, _ = drawn
    for group in groups_of(plan, start, 4):
        for images in group:
            size = (labels == labels[images[0]]).sum()
            assert len(set(images)) == min(size, len(images)) or plan._sampling.cross_domain


@settings(max_examples=100, deadline=None)
@given(plans(), starts)
def test_pairs_are_all_pairs_of_a_class_each_with_its_negatives(drawn, start):
    plan, labels, _ = drawn
    sampling, count = plan._sampling, 3
    pairs = plan.pairs(start, count)
    n = len(pairs.images)
    assert len(pairs.different) == count * plan.pairs_per_position
    left, right = pairs.left, pairs.right % n
    of_image = labels[pairs.images]
    assert ((of_image[left] != of_image[right]) == pairs.different).all()
    assert (left // plan.images_per_position == right // plan.images_per_position).all()
    assert (left != right).all()
    roles = pairs.different.reshape(-1, 1 + sampling.negatives)
    assert (roles.sum(1) == sampling.negatives).all()
    assert not roles[:, 0].any()
    # each negative has one of the two images of its positive
    of_positive = left.reshape(roles.shape)[:, :1], right.reshape(roles.shape)[:, :1]
    known = left.reshape(roles.shape)
    assert ((known == of_positive[0]) | (known == of_positive[1])).all()
    positive = list(zip(left[~pairs.different], right[~pairs.different], strict=True))
    if not sampling.cross_domain:
        assert len(set(positive)) == len(positive)
        assert all(a < b for a, b in positive)


def domains_in(plan, domains, start):
    """(left, right, different) domains and whether the pairs differ, and the places."""
    pairs = plan.pairs(start, 3)
    right = pairs.right % len(pairs.images)
    found = domains[pairs.images]
    return found[pairs.left], found[right], pairs


@settings(max_examples=100, deadline=None)
@given(plans(cross_domain=True), starts)
def test_positives_across_domains_are_so_wherever_the_class_has_several(drawn, start):
    plan, labels, domains = drawn
    left, right, pairs = domains_in(plan, domains, start)
    several = np.array([len(set(domains[labels == label])) > 1 for label in labels])
    positive = ~pairs.different
    crosses = several[pairs.images[pairs.left]]
    assert ((left != right) == crosses)[positive].all()


@settings(max_examples=100, deadline=None)
@given(plans(same_domain_negatives=True), starts)
def test_negatives_of_one_domain_are_so_wherever_the_group_has_one(drawn, start):
    plan, labels, domains = drawn
    left, right, pairs = domains_in(plan, domains, start)
    place = np.arange(len(pairs.images))
    group = place // plan.images_per_position
    of_place, label = domains[pairs.images], labels[pairs.images]
    for pair in np.flatnonzero(pairs.different):
        at = pairs.left[pair]
        same = (group == group[at]) & (of_place == of_place[at]) & (label != label[at])
        assert (left[pair] == right[pair]) == same.any()


@settings(max_examples=60, deadline=None)
@given(plans(mean_partners=True, images=4), starts)
def test_a_mean_leaves_out_the_image_it_is_compared_with(drawn, start):
    plan, _, _ = drawn
    pairs = plan.pairs(start, 2)
    n = len(pairs.images)
    number, place = 1 + pairs.right // n, pairs.right % n
    assert number.max() <= 3
    first = place // 4 * 4
    members = first[:, None] + (place[:, None] + np.arange(3)) % 4
    used = np.arange(3) < number[:, None]
    assert not ((members == pairs.left[:, None]) & used).any()
    of_positive = number.reshape(-1, 1 + plan._sampling.negatives)
    assert (of_positive == of_positive[:, :1]).all()


@settings(max_examples=40, deadline=None)
@given(plans(), starts, st.integers(1, 5))
def test_groups_do_not_depend_on_how_they_are_asked_for(drawn, start, count):
    plan, _, _ = drawn
    together = plan.pairs(start, count)
    alone = [plan.pairs(start + i, 1) for i in range(count)]
    for name in ("images", "key", "different"):
        parts = np.concatenate([getattr(part, name) for part in alone])
        assert (getattr(together, name) == parts).all()
    n = len(together.images)
    for name in ("left", "right"):
        parts = [getattr(part, name) for part in alone]
        shares = [part % plan.images_per_position for part in parts]
        first = np.repeat(np.arange(count), plan.pairs_per_position) * plan.images_per_position
        assert (getattr(together, name) % n == np.concatenate(shares) + first).all()


def test_another_seed_gives_another_sequence():
    labels = np.repeat(np.arange(20), 10)
    sampling = SamplingConfig("classes", classes=10)
    one, other = (ClassPlan(labels, labels * 0, sampling, seed=seed).pairs(0, 4) for seed in (1, 2))
    assert (one.images != other.images).any()
    assert (one.right != other.right).any()


def test_draws_are_uniform():
    """Chi-square with the seed fixed; the bounds are the 0.999 quantiles."""
    from scipy.stats import chi2

    labels = np.repeat(np.arange(7), 6)
    plan = ClassPlan(labels, labels * 0, SamplingConfig("classes", classes=3, images=3), seed=5)
    pairs = plan.pairs(0, 4000)
    counts = np.bincount(pairs.images)
    # Each class is once in an epoch, and drawn again to fill the last group in 2 of 7 epochs.
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < chi2.ppf(0.999, len(counts) - 1)
    places = (pairs.right % 9)[pairs.different]
    other = Counter((places - 3 * (pairs.left[pairs.different] % 9 // 3)) % 9)
    assert set(other) == {3, 4, 5, 6, 7, 8}
    expected = sum(other.values()) / 6
    assert sum((n - expected) ** 2 / expected for n in other.values()) < chi2.ppf(0.999, 5)
    orders = Counter(tuple(map(int, row)) for row in pairs.images.reshape(-1, 3))
    assert len(orders) == 7 * 6 * 5 * 4


def test_the_last_position_costs_as_much_as_the_first(monkeypatch):
    evaluated = []

    def counting(elements, size, seed, epochs):
        evaluated.append(elements.size)
        return permute(elements, size, seed, epochs)

    monkeypatch.setattr("pipelines.class_plan.permute", counting)
    labels = np.repeat(np.arange(100), 13)
    plan = ClassPlan(labels, labels * 0, SamplingConfig("classes"), seed=0)
    costs = []
    for start in (0, 10**15):
        evaluated.clear()
        plan.pairs(start, 2)
        costs.append(sum(evaluated))
    assert costs == [2 * 32 * 5] * 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(0, 2**63))
def test_permutations_of_different_sizes_are_those_of_each_size(sizes, seed):
    elements = np.concatenate([np.arange(size) for size in sizes])
    each = np.repeat(sizes, sizes)
    moved = permute(elements, each, seed, np.full(len(elements), 5))
    alone = [permute(np.arange(size), size, seed, np.full(size, 5)) for size in sizes]
    assert (moved == np.concatenate(alone)).all()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 0, 1, 1], {"classes": 3}, "data.sampling.classes is 3, the selection has 2 classes"),
        ([0, 0, 1], {"classes": 2}, "label 1 has 1"),
        ([0, 0, 1, 1], {"classes": 2, "cross_domain": True}, "several domains"),
    ],
)
def test_a_selection_without_such_groups_is_refused(labels, options, message):
    labels = np.array(labels)
    with pytest.raises(PackError, match=message):
        ClassPlan(labels, labels * 0, SamplingConfig("classes", **options), seed=0)
