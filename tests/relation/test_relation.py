import numpy as np
import pytest

from graphprune.relation import AxisMap, constant_along_others, push, summarise


def test_push_through_a_product_repeats_the_labels() -> None:
    axis = AxisMap((0, 1))
    assert push(axis, np.array([0, 1]), 0, [2, 3]).tolist() == [0, 0, 0, 1, 1, 1]
    assert push(axis, np.array([0, 1, 2]), 1, [2, 3]).tolist() == [0, 1, 2, 0, 1, 2]


def test_push_through_a_lookup_leaves_strangers_unlabelled() -> None:
    axis = AxisMap((0,), np.array([-1, 2, 0]))
    assert push(axis, np.array([5, 6, 7]), 0, [3]).tolist() == [-1, 7, 5]


@pytest.mark.parametrize(
    ("labels", "factors"),
    [([0, 0, 1, 1], [0]), ([0, 1, 0, 1], [1]), ([0, 1, 2, 3], []), ([0, 0, 0, 0], [0, 1]), ([-1, -1, 3, 3], [0])],
)
def test_the_factor_along_which_labels_vary(labels: list[int], factors: list[int]) -> None:
    assert constant_along_others(np.array(labels), [2, 2]) == factors


def test_a_lookup_has_one_dim() -> None:
    with pytest.raises(ValueError, match="exactly one dim"):
        AxisMap((0, 1), np.arange(4))


@pytest.mark.parametrize(
    ("indices", "text"), [([0, 1, 2], "0:3"), ([1, 3, 5], "1:6:2"), ([4], "4"), ([3, 1, 2, 0, 5], "3,1,2,0,..")]
)
def test_lookups_print_short(indices: list[int], text: str) -> None:
    assert summarise(np.array(indices)) == text
