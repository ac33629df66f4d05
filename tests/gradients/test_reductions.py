from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.gradients import differentiate
from tests.gradients.checking import check, evaluate, gradients

_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"


def _apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Positive values, no two alike."""
    return (rng.permutation(int(np.prod(shape))).reshape(shape) + 1.0) / 4


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(_REDUCTIONS.split()), st.data())
def test_over_axes(name: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    axes = data.draw(st.lists(st.integers(-len(shape), -1), min_size=0, max_size=len(shape), unique=True))
    keep = data.draw(st.integers(0, 1))
    op, x = f"Reduce{name}", _apart(rng, shape)
    if axes:
        check(op, x, np.asarray(axes, np.int64), keepdims=keep)
        check(op, x, opset=11, axes=axes, keepdims=keep)
    else:
        check(op, x, keepdims=keep)
        check(op, x, keepdims=keep, noop_with_empty_axes=1) if name not in ("LogSum",) else None


def test_product_with_zeros() -> None:
    x = np.asarray([[1.0, 2, 0], [0, 3, 0], [2, 3, 4]])
    check("ReduceProd", x, np.asarray([1]))


def test_ties_share() -> None:
    x = np.asarray([[1.0, 2, 2]])
    found = gradients("ReduceMax", [x, np.asarray([1])], [np.asarray([[1.0]])], [0])
    assert found["d:x0"].tolist() == [[0, 0.5, 0.5]]


def test_zero_has_no_direction() -> None:
    for op, x in (("ReduceL2", [np.zeros((1, 2)), np.asarray([1])]), ("LpNormalization", [np.zeros((1, 2))])):
        grown = [np.ones((1, 1 if op == "ReduceL2" else 2))]
        assert gradients(op, x, grown, [0])["d:x0"].tolist() == [[0, 0]]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_along_an_axis(axis: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 2))
    for op in ("Softmax", "LogSoftmax"):
        check(op, x, axis=axis)
        check(op, x, axis=axis, opset=11, exact=False, tolerance=1e-2)
    check("LpNormalization", x, axis=axis, p=2)
    check("LpNormalization", x + np.sign(x), axis=axis, p=1, exact=False, tolerance=1e-2)  # the reference adds signs
    for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
        check("CumSum", x, np.asarray(axis), exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize("inside", [False, True])
def test_rows_that_are_masked_whole(inside: bool) -> None:
    """What the model replaces, since no softmax of it exists, has no gradient."""
    steps = "s = Add(x, mask)  p = Softmax(s)  n = IsNaN(p)  y = Where(n, zero, p)"
    same = f"() => (float[2,2] y) {{ {steps} }}"
    branches = f"y = If (c) <then_branch = a {same}, else_branch = b {same}>"
    text = f"""<ir_version: 10, opset_import: ["" : 18]> g (float[2,2] x, float[2,2] mask, bool c) => (float[2,2] y)
        <float zero = {{0.0}}> {{ {branches if inside else steps} }}"""
    found = differentiate(onnx.parser.parse_model(text), wrt=["x"]).model
    mask = np.asarray([[0, 0], [-np.inf, -np.inf]], np.float32)
    g = np.asarray([[1, 0], [1, 0]], np.float32)
    grad = evaluate(found, {"x": np.zeros((2, 2), np.float32), "mask": mask, "c": np.array(True), "d:y": g}, False)[0]
    assert grad.tolist() == [[0.25, -0.25], [0, 0]]


def test_losses() -> None:
    x, labels = np.random.default_rng(0).standard_normal((3, 4)), np.asarray([1, 0, 3])
    check("SoftmaxCrossEntropyLoss", x, labels, exact=False, tolerance=1e-2)
    check("NegativeLogLikelihoodLoss", x, labels, exact=False, tolerance=1e-2)
