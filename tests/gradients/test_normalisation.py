from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(-3, 2), st.booleans(), st.integers(1, 3), st.integers(0, 99))
def test_layers(rank: int, axis: int, bias: bool, outputs: int, seed: int) -> None:
    shape = tuple(np.random.default_rng(seed).integers(2, 4, rank))
    axis = max(min(axis, rank - 1), -rank)
    x, scale = _normal(*shape, seed=seed), _normal(*shape[axis:], seed=seed + 1)
    more = [_normal(*shape[axis:], seed=seed + 2)] if bias else []
    check("LayerNormalization", x, scale, *more, outputs=outputs, axis=axis, epsilon=0.01, opset=17)
    check("RMSNormalization", x, scale, axis=axis, epsilon=0.01)


def test_scale_of_fewer_dimensions() -> None:
    check("LayerNormalization", _normal(2, 3, 4), _normal(3, 4), axis=1)
    check("LayerNormalization", _normal(2, 3, 4), _normal(4), _normal(4))
    check("RMSNormalization", _normal(2, 3, 4), _normal(4))


@pytest.mark.parametrize("spatial", [(), (3,), (2, 3)])
def test_batches(spatial: tuple[int, ...]) -> None:
    x, c = _normal(3, 2, *spatial), [_normal(2, seed=k) for k in range(3)]
    check("BatchNormalization", x, *c, np.asarray([0.5, 2.0]), opset=15, epsilon=0.1)
    check("BatchNormalization", x, *c, np.asarray([0.5, 2.0]), opset=9, exact=False)
    if spatial:
        check("InstanceNormalization", x, *c[:2])


def test_batches_in_training() -> None:
    c = [_normal(2, seed=k) for k in range(3)]
    variance = np.asarray([0.5, 2.0])
    check("BatchNormalization", _normal(3, 2, 3), *c, variance, opset=15, training_mode=1, outputs=3, momentum=0.7)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_groups(opset: int) -> None:
    size = 4 if opset >= 21 else 2
    x, scale, bias = _normal(2, 4, 2, 3), _normal(size, seed=1), _normal(size, seed=2)
    with_runtime = {"exact": False, "tolerance": 1e-2} if opset >= 21 else {}  # the reference is of single precision
    check("GroupNormalization", x, scale, bias, num_groups=2, epsilon=0.1, opset=opset, **with_runtime)
    check("GroupNormalization", x[:, :, 0], scale, bias, num_groups=2, epsilon=0.1, opset=opset, **with_runtime)


def test_by_body() -> None:
    check("MeanVarianceNormalization", _normal(2, 2, 3, 2), exact=False, tolerance=1e-2)
    check("MeanVarianceNormalization", _normal(2, 3), exact=False, tolerance=1e-2, axes=[1])
