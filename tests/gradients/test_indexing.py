from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _ints(values: object) -> np.ndarray:
    return np.asarray(values, np.int64)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(-3, 2), st.integers(0, 2), st.integers(0, 99))
def test_gathers(rank: int, axis: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(rng.integers(2, 5, rank))
    axis = max(min(axis, rank - 1), -rank)
    at = rng.integers(-x.shape[axis], x.shape[axis], rng.integers(1, 4, width))
    check("Gather", x, _ints(at), axis=axis)


def test_gathers_of_runs() -> None:
    check("Gather", _normal(3, 4), _ints(-1), axis=1)
    check("Gather", _normal(3, 4), _ints([1, 2]), axis=1)
    check("Gather", _normal(3, 4), _ints([-2, -1]).astype(np.int32))


def test_reads() -> None:
    check("GatherElements", _normal(3, 3), _ints([[0, -1, 2], [0, 0, 1]]), axis=0)
    check("GatherND", _normal(2, 3, 2), _ints([[0, 1], [1, -1], [0, 1]]))
    check("GatherND", _normal(2, 3, 2), _ints([[0], [2]]), batch_dims=1)
    check("Compress", _normal(3, 4), np.asarray([True, False, True]), axis=0)
    check("TopK", _normal(3, 5), _ints([2]), axis=-1, outputs=2)
    check("TopK", _normal(3, 5), _ints([2]), axis=0, largest=0, outputs=2, opset=11)
    for axis in (-1, 0):
        check("OneHot", _ints([1, 0, 3]), _ints(3), np.asarray([0.5, 2.0]), axis=axis)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_writes(reduction: str) -> None:
    once = reduction == "none"
    rows = _ints([[0], [2]] if once else [[0], [2], [0]])
    updates = _normal(len(rows), 3, seed=1)
    if reduction == "mul":
        updates[0, 0] = 0
    check("ScatterND", _normal(3, 3), rows, updates, reduction=reduction)
    at = _ints([[0, 1, 2], [1, 0, 0]] if once else [[0, 1, 2], [0, 0, -1]])
    check("ScatterElements", _normal(3, 4), at, updates[:2], reduction=reduction)


def test_writes_into_a_cache() -> None:
    check("TensorScatter", _normal(2, 4, 2), _normal(2, 2, 2), _ints([1, 0]), axis=1, opset=24)
    check("TensorScatter", _normal(2, 4, 2), _normal(2, 2, 2), _ints([3, 0]), axis=1, opset=24, mode="circular")


def test_of_old() -> None:
    check("Scatter", _normal(3, 3), _ints([[0, 1, 2]]), _normal(1, 3, seed=1), opset=10, exact=False, tolerance=1e-2)
