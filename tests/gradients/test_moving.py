from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_slices(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    starts, ends, steps = [], [], []
    for _ in axes:
        step = data.draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        bounds = sorted(data.draw(st.lists(st.integers(-8, 8), min_size=2, max_size=2)))
        starts.append(bounds[step < 0])
        ends.append(bounds[step > 0])
        steps.append(step)
    taken = {
        a: range(shape[a])[slice(*bounds)]
        for a, bounds in zip(axes, zip(starts, ends, steps, strict=True), strict=True)
    }
    assume(all(len(t) for t in taken.values()))  # inference of shapes is wrong where nothing is taken
    axes = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    check("Slice", _normal(*shape), _ints(*starts), _ints(*ends), _ints(*axes), _ints(*steps))


def test_slices_of_nothing() -> None:
    check("Slice", _normal(4, 3), _ints(2), _ints(2), _ints(1), _ints(2))
    check("Slice", _normal(4, 3), _ints(3), _ints(1))


def test_slices_without_axes() -> None:
    check("Slice", _normal(4, 3), _ints(1, 0), _ints(2**62, -1))
    check("Slice", _normal(7, 3), _ints(-3), _ints(2**62), None, _ints(2))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pads(mode: str) -> None:
    value = [np.asarray(0.3)] if mode == "constant" else []
    check("Pad", _normal(3, 4), _ints(1, 0, 2, 3), *value, mode=mode)
    check("Pad", _normal(2, 3, 4), _ints(1, 2), *(value or [None]), _ints(-1), mode=mode)
    if mode != "constant":  # a value that is given all the same, as old models have it, does nothing
        check("Pad", _normal(3, 4), _ints(1, 0, 2, 3), np.asarray(0.3), wrt=[0], mode=mode)
    if mode == "constant":
        check("Pad", _normal(3, 4), _ints(-1, 1, 2, -2), *value, exact=False, tolerance=1e-2)


def test_what_is_another_order() -> None:
    check("Transpose", _normal(2, 3, 2), perm=[2, 0, 1])
    check("Transpose", _normal(2, 3))
    check("Trilu", _normal(3, 4), upper=0)
    check("Trilu", _normal(2, 3, 3), _ints(-1).reshape(()))
    check("ReverseSequence", _normal(4, 3), _ints(1, 2, 4))
    check("ReverseSequence", _normal(3, 4), _ints(1, 2, 4), batch_axis=0, time_axis=1)
    for mode in ("DCR", "CRD"):
        check("DepthToSpace", _normal(1, 8, 2, 3), blocksize=2, mode=mode)
    check("SpaceToDepth", _normal(2, 1, 4, 2), blocksize=2)
    check("Reshape", _normal(2, 3, 2), _ints(0, -1))
    check("Flatten", _normal(2, 3, 2), axis=2)
    check("Squeeze", _normal(2, 1, 2))
    check("Unsqueeze", _normal(2, 2), _ints(0, -1))


def test_what_is_repeated() -> None:
    check("Tile", _normal(2, 3), _ints(2, 1))
    check("Tile", _normal(2, 1, 3), _ints(2, 3, 2))
    check("Expand", _normal(2, 1), _ints(2, 2, 3))
    check("Expand", _normal(2, 1, 3), _ints(1, 1))


def test_what_is_joined_and_cut() -> None:
    check("Concat", _normal(2, 3), _normal(2, 1), _normal(2, 2), axis=-1)
    check("Split", _normal(2, 5), _ints(2, 3), outputs=2, axis=1)
    check("Split", _normal(5, 2), outputs=2, num_outputs=2)
    check("Split", _normal(4, 2), outputs=2, opset=11)
    check("CenterCropPad", _normal(3, 4), _ints(5, 2))
