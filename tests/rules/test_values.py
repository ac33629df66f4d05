import numpy as np
import pytest

from graphprune.rules.values import UNKNOWN, evaluate


def test_shape_arithmetic_of_an_exported_reshape() -> None:
    shape = evaluate("Shape", [None], {}, [(2, 3, 8)])
    assert shape is not None and shape.tolist() == [2, 3, 8]
    first = evaluate("Gather", [shape, np.array(0)], {"axis": 0}, [(3,), ()])
    assert first is not None and first.shape == ()
    lifted = evaluate("Unsqueeze", [first, np.array([0])], {}, [(), (1,)])
    joined = evaluate("Concat", [lifted, np.array([4])], {"axis": 0}, [(1,), (1,)])
    assert joined is not None and joined.tolist() == [2, 4]


def test_integer_division_truncates_towards_zero() -> None:
    found = evaluate("Div", [np.array([-7, 7]), np.array([2, 2])], {}, [(2,), (2,)])
    assert found is not None and found.tolist() == [-3, 3]


@pytest.mark.parametrize(
    ("start", "stop", "step", "expected"), [(0, 2, 1, [0, 1]), (-1, -(2**31), -1, [3, 2, 1, 0]), (1, 99, 2, [1, 3])]
)
def test_slices(start: int, stop: int, step: int, expected: list[int]) -> None:
    operands = [np.arange(4), *(np.array([v]) for v in (start, stop, 0, step))]
    found = evaluate("Slice", operands, {}, [v.shape for v in operands])
    assert found is not None and found.tolist() == expected


def test_what_is_not_known_or_too_large_is_not_followed() -> None:
    assert evaluate("Identity", [None], {}, [UNKNOWN]) is None
    assert evaluate("Shape", [None], {}, [UNKNOWN]) is None
    assert evaluate("ConstantOfShape", [np.array([10**6])], {}, [(1,)]) is None
    assert evaluate("Conv", [np.zeros((1, 1, 1))], {}, [(1, 1, 1)]) is None
