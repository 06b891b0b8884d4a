import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.permutation import permute
from pipelines.plan import PairPlan
from runtime.errors import PackError

class_sizes = st.lists(st.integers(2, 9), min_size=2, max_size=7)


def labels_of(sizes):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@settings(max_examples=60, deadline=None)
@given(sizes=class_sizes, negatives=st.integers(1, 5), balanced=st.booleans(), seed=st.integers(0))
def test_an_epoch_has_each_anchor_in_each_role_exactly_once(sizes, negatives, balanced, seed):
    labels = labels_of(sizes)
    plan = PairPlan(labels, seed=seed, num_negatives=negatives, balanced=balanced)
    pairs = plan.pairs(plan.pairs_per_epoch * 3, plan.pairs_per_epoch)
    positives = np.bincount(pairs.anchor[~pairs.different], minlength=len(labels))
    all_roles = np.bincount(pairs.anchor, minlength=len(labels))
    assert (all_roles == positives * (1 + negatives)).all()
    if balanced:
        assert (positives >= 1).all()
        assert (np.bincount(labels, weights=positives) == max(sizes)).all()
    else:
        assert (positives == 1).all()


class_weights = st.lists(
    st.floats(0.01, 5) | st.sampled_from([1.0, 2.0]), min_size=7, max_size=7
).map(np.array)


@settings(max_examples=60, deadline=None)
@given(
    sizes=class_sizes, weights=class_weights, epoch=st.integers(0, 2**20), balanced=st.booleans()
)
def test_an_epoch_has_anchors_in_proportion_to_the_weights(sizes, weights, epoch, balanced):
    labels = labels_of(sizes)
    plan = PairPlan(labels, weights[labels], seed=2, num_negatives=2, balanced=balanced)
    pairs = plan.pairs(plan.pairs_per_epoch * epoch, plan.pairs_per_epoch)
    by_image = np.bincount(pairs.anchor[~pairs.different], minlength=len(labels))
    assert (np.bincount(pairs.anchor, minlength=len(labels)) == 3 * by_image).all()
    for class_, size in enumerate(sizes):
        expected = weights[class_] * (max(sizes) if balanced else size)
        anchors = by_image[labels == class_]
        assert anchors.sum() == max(1, round(expected)) or abs(anchors.sum() - expected) < 0.501
        if balanced and anchors.sum() >= size:
            assert (anchors >= 1).all()
        else:
            assert anchors.max() - anchors.min() <= 1


@settings(max_examples=40, deadline=None)
@given(sizes=class_sizes, weight=st.floats(0.01, 3), start=st.integers(0, 2**30))
def test_images_that_take_turns_are_anchors_equally_often(sizes, weight, start):
    labels = labels_of(sizes)
    weights = np.full(len(labels), weight)
    plan = PairPlan(labels, weights, seed=3, num_negatives=1, balanced=False)
    epochs = int(np.lcm.reduce(sizes))
    pairs = plan.pairs(start * plan.pairs_per_epoch, min(epochs, 60) * plan.pairs_per_epoch)
    by_image = np.bincount(pairs.anchor[~pairs.different], minlength=len(labels))
    for class_ in range(len(sizes)):
        anchors = by_image[labels == class_]
        assert anchors.max() - anchors.min() <= (epochs > 60)


def test_images_with_different_weights_count_by_the_mean_in_their_class():
    labels = np.repeat([0, 1], [4, 6])
    weights = np.array([1, 1, 3, 3, 1, 1, 1, 1, 1, 1])
    pairs_per_epoch = {True: 12 + 6, False: 8 + 6}
    for balanced, anchors in pairs_per_epoch.items():
        plan = PairPlan(labels, weights, seed=0, num_negatives=1, balanced=balanced)
        assert plan.anchors_per_epoch == anchors


@settings(max_examples=60, deadline=None)
@given(sizes=class_sizes, balanced=st.booleans(), start=st.integers(0, 2**40))
def test_a_pair_is_labelled_by_its_classes_and_never_holds_one_image_twice(sizes, balanced, start):
    labels = labels_of(sizes)
    pairs = PairPlan(labels, seed=5, num_negatives=3, balanced=balanced).pairs(start, 200)
    assert (pairs.different == (labels[pairs.anchor] != labels[pairs.partner])).all()
    assert (pairs.anchor != pairs.partner).all()


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 2**40),
    cuts=st.lists(st.integers(0, 60), min_size=1, max_size=4).map(sorted),
    weights=class_weights,
    balanced=st.booleans(),
)
def test_any_cut_of_the_sequence_gives_the_same_pairs(start, cuts, weights, balanced):
    labels = labels_of([3, 5, 4])
    plan = PairPlan(labels, weights[labels], seed=1, num_negatives=2, balanced=balanced)
    whole = plan.pairs(start, 60)
    edges = [0, *cuts, 60]
    parts = [plan.pairs(start + a, b - a) for a, b in itertools.pairwise(edges)]
    for name in ("anchor", "partner", "different", "key"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert (joined == getattr(whole, name)).all()


@pytest.mark.parametrize("balanced", [True, False])
def test_equal_weights_of_1_change_nothing(balanced):
    labels = labels_of([3, 5, 4])
    plain = PairPlan(labels, seed=1, balanced=balanced)
    weighted = PairPlan(labels, np.ones(len(labels)), seed=1, balanced=balanced)
    for name in ("anchor", "partner", "different", "key"):
        one, other = (getattr(plan.pairs(10**6, 500), name) for plan in (plain, weighted))
        assert (one == other).all()


def test_the_sequence_of_earlier_versions_continues():
    """Golden: weighted sums of what the plan drew at these positions before it had weights."""
    labels = labels_of([3, 5, 4])
    position = np.arange(1, 501)
    for balanced, expected in ((True, [715368, 708184]), (False, [688626, 743350])):
        pairs = PairPlan(labels, seed=1, balanced=balanced).pairs(10**6, 500)
        sums = [int((position * images).sum()) for images in (pairs.anchor, pairs.partner)]
        assert sums == expected


def test_epochs_and_seeds_differ():
    plan = PairPlan(labels_of([20] * 5), seed=1)
    first, second = plan.pairs(0, 500), plan.pairs(plan.pairs_per_epoch, 500)
    other = PairPlan(labels_of([20] * 5), seed=2).pairs(0, 500)
    assert (first.anchor != second.anchor).mean() > 0.9
    assert (first.anchor != other.anchor).mean() > 0.9
    assert len(np.unique(np.concatenate([first.key, second.key, other.key]))) == 1500


@pytest.mark.parametrize("weights", [None, np.repeat([0.5, 2.0], 6500)])
def test_a_position_far_away_takes_no_longer_path(monkeypatch, weights):
    """Cost in the number of hash evaluations, which does not depend on the machine."""
    import sharding.format.splitmix as splitmix

    evaluated: list[int] = []
    mix = splitmix.mix

    def counting(values):
        evaluated.append(values.size)
        return mix(values)

    monkeypatch.setattr("pipelines.hashing.mix", counting)
    monkeypatch.setattr("pipelines.permutation.mix", counting)
    plan = PairPlan(np.repeat(np.arange(100), 130), weights, seed=0)
    costs = []
    for start in (0, 10**9, 10**15):
        evaluated.clear()
        plan.pairs(start, 256)
        costs.append(sum(evaluated))
    assert max(costs) < 1.1 * min(costs)


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_the_permutation_is_one_to_one(size, seed, epoch):
    moved = permute(np.arange(size), size, seed, np.full(size, epoch))
    assert (np.sort(moved) == np.arange(size)).all()


def chi_square(observed, expected):
    return float(((observed - expected) ** 2 / expected).sum())


def test_partners_are_uniform_over_classes_and_images():
    """Chi-square with the seed fixed; the bounds are the 0.999 quantiles."""
    sizes = [30, 10, 20, 40]
    labels = np.repeat(np.arange(4), sizes)
    plan = PairPlan(labels, seed=3, num_negatives=4)
    pairs = plan.pairs(0, 40 * plan.pairs_per_epoch)
    from scipy.stats import chi2

    negative = pairs.different & (labels[pairs.anchor] == 3)
    by_class = np.bincount(labels[pairs.partner[negative]], minlength=4)[:3]
    assert chi_square(by_class, by_class.sum() / 3) < chi2.ppf(0.999, 2)
    for class_, size in enumerate(sizes):
        partners = pairs.partner[pairs.different & (labels[pairs.partner] == class_)]
        by_image = np.bincount(partners, minlength=len(labels))[labels == class_]
        assert chi_square(by_image, by_image.mean()) < chi2.ppf(0.999, size - 1)
    positive = ~pairs.different & (pairs.anchor == 0)
    by_image = np.bincount(pairs.partner[positive], minlength=30)[1:30]
    assert chi_square(by_image, by_image.mean()) < chi2.ppf(0.999, 28)


def test_neighboring_positions_are_unrelated():
    """The order is not a rotation or a stride: successive anchors' classes are independent."""
    from scipy.stats import chi2

    labels = np.repeat(np.arange(5), 200)
    plan = PairPlan(labels, seed=11, num_negatives=20)
    pairs = plan.pairs(0, plan.pairs_per_epoch)
    classes = labels[pairs.anchor]
    table = np.zeros((5, 5))
    np.add.at(table, (classes[:-1], classes[1:]), 1)
    assert chi_square(table, table.sum() / 25) < chi2.ppf(0.999, 24)


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 0, 0], "at least 2 classes"), ([0, 0, 1], "label 1 has 1")]
)
def test_labels_without_pairs_are_refused(labels, message):
    with pytest.raises(PackError, match=message):
        PairPlan(np.array(labels), seed=0)
