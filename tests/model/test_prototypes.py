import pytest
import torch

from model.prototypes import class_means, most_significant


def test_class_means_are_the_means_of_the_classes():
    features = torch.tensor([[1.0, 0.0], [10.0, 4.0], [3.0, 2.0]])
    means = class_means(features, torch.tensor([0, 1, 0]), 2)
    torch.testing.assert_close(means, torch.tensor([[2.0, 1.0], [10.0, 4.0]]))


def test_class_without_reference_is_refused():
    with pytest.raises(ValueError, match="class 1 has no reference"):
        class_means(torch.ones(2, 2), torch.tensor([0, 2]), 3)


def test_most_significant_starts_at_the_mean_and_goes_for_the_farthest():
    # One class on a line: mean 4.4, nearest 4; farthest from 4 is 10, then 0.
    features = torch.tensor([[0.0], [3.0], [4.0], [5.0], [10.0]])
    positions, classes = most_significant(features, torch.zeros(5, dtype=torch.int64), 1, 3)
    assert positions.tolist() == [2, 4, 0]
    assert classes.tolist() == [0, 0, 0]


def test_most_significant_gives_a_small_class_once_each():
    features = torch.tensor([[1.0], [1.0], [7.0]])
    positions, classes = most_significant(features, torch.tensor([0, 0, 1]), 2, 5)
    assert sorted(positions.tolist()) == [0, 1, 2]
    assert classes.tolist() == [0, 0, 1]


def test_most_significant_equals_a_plain_search():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator)
    classes = torch.arange(60) % 3
    positions, _ = most_significant(features, classes, 3, 6)
    for number in range(3):
        members = [row for row in range(60) if row % 3 == number]
        mean = features[members].mean(dim=0)
        chosen = [min(members, key=lambda row: (features[row] - mean).norm().item())]
        while len(chosen) < 6:
            rest = [row for row in members if row not in chosen]
            chosen.append(
                max(rest, key=lambda row: min((features[row] - features[c]).norm() for c in chosen))
            )
        assert positions[6 * number : 6 * number + 6].tolist() == chosen


def test_asking_for_no_prototype_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        most_significant(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), 1, 0)
