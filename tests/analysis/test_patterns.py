"""N:M patterns of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.analysis import patterns
from graphprune.analysis.patterns import OfEvery, Pattern, Vectors
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
    kept = OfEvery(n, m).kept(scores, axis)
    np.testing.assert_array_equal(kept, by_hand(scores, axis, n, m))
    if shape[axis] >= m:
        assert OfEvery(n, m).follows(scores * kept, axis)


def test_following_is_a_matter_of_the_axis() -> None:
    value = np.random.default_rng(0).standard_normal((8, 12))
    pattern = OfEvery(2, 4)
    sparse = value * pattern.kept(np.abs(value), 1)
    assert pattern.follows(sparse, 1) and not pattern.follows(sparse, 0) and not pattern.follows(value, 1)
    assert OfEvery(3, 4).follows(sparse, 1) and not OfEvery(1, 4).follows(sparse, 1)
    assert not pattern.follows(np.ones((2, 3)), 1)


def test_a_last_block_that_is_not_full_is_filled_with_zeros() -> None:
    pattern = OfEvery(2, 4)
    assert pattern.follows(np.array([1.0, 1, 0, 0, 1, 1]), 0)
    assert not pattern.follows(np.array([1.0, 1, 0, 0, 1, 1, 1]), 0)
    assert pattern.kept(np.array([1.0, 2, 3, 4, 5]), 0).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("text", ["2", "2:2", "0:4", "5:4", "-1:4", "two:four", "2:4:8"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(InputError, match="choose from N:M"):
        patterns.parse(text)


def test_text() -> None:
    assert str(patterns.parse("2:4")) == "2:4" and patterns.parse("2:4") == OfEvery(2, 4)


@dataclass(frozen=True)
class Plain(Pattern):
    """N:M by nothing but what any pattern must say."""

    form: ClassVar[str] = "plain"
    n: int
    m: int

    @classmethod
    def read(cls, text: str, amount: float) -> Pattern | None:
        return None

    def __str__(self) -> str:
        return f"{self.n} of {self.m}"

    @property
    def block(self) -> int:
        return self.m

    def stay(self, blocks: np.ndarray) -> np.ndarray:
        order = np.argsort(-blocks, axis=1, kind="stable")
        return np.argsort(order, axis=1) < self.n


@pytest.mark.parametrize("shape", [(8,), (3, 10), (4, 9, 5)])
def test_what_any_pattern_says_is_enough(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for axis in range(len(shape)):
        scores = rng.integers(0, 5, shape).astype(np.float32)
        for n, m in ((2, 4), (1, 3)):
            own, fast = Plain(n, m), OfEvery(n, m)
            np.testing.assert_array_equal(own.kept(scores, axis), fast.kept(scores, axis))
            for value in (scores, scores * fast.kept(scores, axis)):
                assert own.follows(value, axis) == fast.follows(value, axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vectors_go_as_one(axis: int) -> None:
    pattern = patterns.parse("1x4", 0.5)
    assert pattern == Vectors(4, 0.5) and str(pattern) == "1x4" and pattern.block == 4
    value = np.random.default_rng(1).standard_normal((8, 12, 16)).astype(np.float32)
    stay = pattern.kept(np.abs(value), axis)
    vectors = np.moveaxis(stay, axis, 0).reshape(-1, 4, stay.size // stay.shape[axis])
    assert (vectors.all(1) | ~vectors.any(1)).all() and stay.mean() == 0.5
    sums = np.moveaxis(np.abs(value), axis, 0).reshape(vectors.shape).sum(1)
    assert sums[vectors[:, 0]].min() > sums[~vectors[:, 0]].max()
    assert pattern.follows(value * stay, axis) and not pattern.follows(value, axis)
    assert not any(pattern.follows(value * stay, other) for other in {0, 1, 2} - {axis})


def test_amounts_go_with_the_patterns_that_leave_them_open() -> None:
    for text, amount, said in (("1x4", None, "wants --amount"), ("2:4", 0.5, "says itself"), ("1x4", 1.0, "in (0, 1)")):
        with pytest.raises(InputError) as refused:
            patterns.parse(text, amount)
        assert said in str(refused.value)
    assert "not for 1x4" in patterns.parse("1x4", 0.5).lacks("permute")
    assert not any(patterns.parse("2:4").lacks(what) for what in ("permute", "pack", "tensorrt"))
    assert patterns.parse("1:4").lacks("tensorrt") and not patterns.parse("1:4").lacks("pack")
