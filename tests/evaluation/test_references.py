import numpy as np
import pytest

from evaluation.config import ReferenceConfig
from evaluation.protocol import ProtocolRows
from evaluation.references import choose_references
from runtime.errors import PackError

CLASSES = np.repeat([0, 1, 2], [4, 6, 3])
ROWS = ProtocolRows(
    reference=np.arange(13) * 10,
    reference_class=CLASSES,
    test=np.array([1, 2]),
    test_class=np.array([0, -1]),
    test_name=np.array(["ant", "dog"], dtype=object),
    known=("ant", "bee", "cat"),
)


def drawn(seed=0, **options):
    return choose_references(ROWS, ReferenceConfig(**options), seed)


def test_all_references_are_used_by_default():
    assert drawn() == ROWS


@pytest.mark.parametrize("replacement", [False, True])
def test_shots_are_drawn_for_each_class(replacement):
    rows = drawn(shots=3, seed=1, with_replacement=replacement)
    assert rows.reference_class.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (CLASSES[rows.reference // 10] == rows.reference_class).all()
    if not replacement:
        assert len(set(rows.reference)) == 9
    assert rows.test is ROWS.test


def test_the_draw_follows_from_the_seed():
    first, again, other = (drawn(shots=2, seed=seed).reference for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_draws_with_replacement_are_those_of_the_original():
    rows = drawn(shots=5, seed=13, with_replacement=True)
    generator = np.random.default_rng(13)
    for number in range(3):
        ids = ROWS.reference[number == CLASSES]
        expected = generator.choice(ids, 5)
        assert sorted(rows.reference[rows.reference_class == number]) == sorted(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 4}, "class cat has 3 reference.*fewer than --shots 4"),
        ({"min_references": 4}, "class cat has 3 reference.*lower --min-references"),
    ],
)
def test_too_few_references_are_refused(options, message):
    with pytest.raises(PackError, match=message):
        drawn(**options)
