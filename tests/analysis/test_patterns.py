"""N:M patterns of arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.analysis.patterns import Pattern
from graphprune.errors import InputError


def by_hand(scores: np.ndarray, axis: int, n: int, m: int) -> np.ndarray:
    """Block by block, element by element."""
    moved = np.moveaxis(scores, axis, -1)
    kept = np.zeros(moved.shape, bool)
    for place in np.ndindex(moved.shape[:-1]):
        for start in range(0, moved.shape[-1], m):
            block = moved[place][start : start + m]
            best = sorted(range(len(block)), key=lambda k: (-block[k], k))[:n]
            kept[place][[start + k for k in best]] = True
    return np.moveaxis(kept, -1, axis)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2), st.integers(1, 5), st.integers(2, 20),
    st.integers(0, 99),
)  # fmt: skip
def test_what_stays_is_the_largest_of_every_block(shape: list[int], axis: int, n: int, m: int, seed: int) -> None:
    axis, n = axis % len(shape), min(n, m - 1)
    scores = np.random.default_rng(seed).integers(0, 5, shape).astype(np.float32)  # with many that are equal
    kept = Pattern(n, m).kept(scores, axis)
    np.testing.assert_array_equal(kept, by_hand(scores, axis, n, m))
    if shape[axis] >= m:
        assert Pattern(n, m).follows(scores * kept, axis)


def test_following_is_a_matter_of_the_axis() -> None:
    value = np.random.default_rng(0).standard_normal((8, 12))
    pattern = Pattern(2, 4)
    sparse = value * pattern.kept(np.abs(value), 1)
    assert pattern.follows(sparse, 1) and not pattern.follows(sparse, 0) and not pattern.follows(value, 1)
    assert Pattern(3, 4).follows(sparse, 1) and not Pattern(1, 4).follows(sparse, 1)
    assert not pattern.follows(np.ones((2, 3)), 1)


def test_a_last_block_that_is_not_full_is_filled_with_zeros() -> None:
    pattern = Pattern(2, 4)
    assert pattern.follows(np.array([1.0, 1, 0, 0, 1, 1]), 0)
    assert not pattern.follows(np.array([1.0, 1, 0, 0, 1, 1, 1]), 0)
    assert pattern.kept(np.array([1.0, 2, 3, 4, 5]), 0).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("text", ["2", "2:2", "0:4", "5:4", "-1:4", "two:four", "2:4:8"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(InputError, match="not like N:M"):
        Pattern.parse(text)


def test_text() -> None:
    assert str(Pattern.parse("2:4")) == "2:4" and Pattern.parse("2:4") == Pattern(2, 4)
