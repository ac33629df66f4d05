from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graphprune.gradients import GradientError, differentiate, vjp
from tests.gradients.checking import check, evaluate, gradients, one_node

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


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, 3.0, -1.0])
def test_powers(power: float) -> None:
    x = np.asarray([0.5, 1.5, 2.0])
    check("Pow", x, np.asarray(power), wrt=[0])
    check("Pow", x, np.asarray(int(power)), wrt=[0])
    for none in (np.zeros(1), np.zeros(1, np.int64)):  # computed, and a constant
        assert gradients("Pow", [np.zeros(1), none], [np.ones(1)], [0])["d:x0"].tolist() == [0]


def test_where_and_clip() -> None:
    rng = np.random.default_rng(0)
    check("Where", rng.random((2, 3)) > 0.5, rng.standard_normal((2, 1)), rng.standard_normal(3))
    check("Clip", rng.uniform(-2, 2, (3, 4)), np.asarray(-0.7), np.asarray(0.6))


@pytest.mark.parametrize("opset", [12, 18, 23])
def test_with_attributes(opset: int) -> None:
    x = _apart(np.random.default_rng(0), (2, 3)) * 2
    check("Celu", x, alpha=0.7, opset=opset, exact=False, tolerance=1e-2)  # the reference casts to single precision
    for op, more in {
        "Elu": {"alpha": 0.7},
        "Selu": {"alpha": 1.2, "gamma": 0.8},
        "ThresholdedRelu": {"alpha": 0.15},
        "Shrink": {"lambd": 0.15, "bias": 0.2},
        "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
        "LeakyRelu": {"alpha": 0.2},
    }.items():
        check(op, x, opset=opset, **more)


def test_of_new_versions() -> None:
    x = _apart(np.random.default_rng(0), (2, 3))
    check("Swish", x, alpha=0.8, opset=24)
    check("Gelu", x, approximate="tanh")
    check("SwiGLU", x, x[:, ::-1], opset=28)


def test_numbers_in_steps() -> None:
    check("Range", np.asarray(0.5), np.asarray(2.2), np.asarray(0.5), wrt=[0, 2])
    check("Mod", np.asarray([2.3, -2.3, 5.1]), np.asarray([1.0, 1.5, -2.0]), fmod=1)


def test_scaler() -> None:
    x, options = _apart(np.random.default_rng(0), (3, 2)), {"domain": "ai.onnx.ml", "exact": False, "tolerance": 1e-2}
    check("Scaler", x, offset=[0.5, 1.0], scale=[2.0, 0.3], **options)


def test_dropout() -> None:
    x = _apart(np.random.default_rng(0), (2, 3))
    check("Dropout", x, wrt=[0])
    assert gradients("Dropout", [x, None, np.asarray(False)], [x], [0])["d:x0"] == pytest.approx(x)
    check("Dropout", x, opset=7, wrt=[0])
    model = one_node("Dropout", [x, np.asarray(0.5, np.float32), np.asarray(True)], TensorProto.FLOAT)
    with pytest.raises(GradientError, match="mask"):
        vjp(model, wrt=["x0"])
    model = one_node("Dropout", [x, np.asarray(0.5, np.float32), np.asarray(True)], TensorProto.FLOAT, outputs=2)
    found = vjp(model, ["y0"], ["x0"], keep=["y1"])
    mask, grad = evaluate(found, {"x0": x.astype("f"), "x1": np.asarray(0.5, "f"), "d:y0": np.ones_like(x, "f")}, False)
    assert np.array_equal(grad, mask * np.float32(2))


def test_casts_to_integers_cut() -> None:
    text = "(float[3] x) => (float[3] y) { n = Cast<to=3>(x) z = Cast<to=1>(n) y = Add(x, z) }"
    found = differentiate(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> g {text}'), wrt=["x"])
    x = np.asarray([0.4, 1.6, 3], np.float32)
    assert evaluate(found.model, {"x": x, "d:y": x}, False)[0].tolist() == x.tolist()


@pytest.mark.parametrize("steep", [False, True])
def test_what_is_cut_off_has_no_gradient_even_where_that_would_be_infinite(steep: bool) -> None:
    """A root of zero has an infinite slope, and zero times infinity is no number; elsewhere a product is faster."""
    x = np.asarray([-1.0, 4.0], np.float32)
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Sqrt" if steep else "Neg", ["r"], ["y"])]
    declared = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "cut", declared[:1], declared[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = vjp(model, wrt=["x"])
    assert ("Where" in {n.op_type for n in found.graph.node}) == steep
    (grad,) = evaluate(found, {"x": x, "d:y": np.ones(2, np.float32)}, exact=False)
    assert grad.tolist() == ([0, 0.25] if steep else [0, -1])
