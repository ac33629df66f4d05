from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check

_ANY = """
    Abs Asinh Atan Cos Cosh Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Sigmoid Sin Sinh
    Softplus Softsign Tanh
"""


def _apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values away from kinks at 0, 1, 3."""
    return rng.choice([-1, 1], shape) * rng.uniform(0.1, 0.9, shape)


@pytest.mark.parametrize("op", _ANY.split())
def test_of_one(op: str) -> None:
    check(op, _apart(np.random.default_rng(0), (2, 3)))


@pytest.mark.parametrize("op", ["Acos", "Asin", "Atanh", "Tan"])
def test_within_one(op: str) -> None:
    check(op, _apart(np.random.default_rng(0), (2, 3)))


@pytest.mark.parametrize("op", ["Acosh", "Log", "Reciprocal", "Sqrt"])
def test_above_one(op: str) -> None:
    check(op, _apart(np.random.default_rng(0), (2, 3)) + 2.5)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu"]), st.data())
def test_of_two(op: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=3))
    thin = [1 if data.draw(st.booleans()) else d for d in shape]
    thin = thin[data.draw(st.integers(0, len(thin))) :]
    a, b = rng.uniform(0.5, 2, shape), rng.uniform(0.5, 2, thin)
    if op != "PRelu" and data.draw(st.booleans()):
        a, b = b, a
    if op == "Mean":  # the reference does not broadcast its inputs
        whole = np.broadcast_shapes(a.shape, b.shape)
        a, b = np.broadcast_to(a, whole), np.broadcast_to(b, whole)
    check(op, a - (1.2 if op == "PRelu" else 0), b)


def test_where_and_clip() -> None:
    rng = np.random.default_rng(0)
    check("Where", rng.random((2, 3)) > 0.5, rng.standard_normal((2, 1)), rng.standard_normal(3))
    check("Clip", rng.uniform(-2, 2, (3, 4)), np.asarray(-0.7), np.asarray(0.6))
