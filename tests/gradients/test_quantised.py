from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphprune.gradients import GradientError, differentiate, vjp
from tests.gradients.checking import check, evaluate


def _ints(*shape: int, kind: type = np.int8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(kind)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([(), (1,), (3,), (2, 2)]), st.booleans(), st.sampled_from([np.int8, np.uint8]))
def test_scales(shape: tuple[int, ...], zero: bool, kind: type) -> None:
    x = _ints(2, 3, kind=kind)
    scale = np.random.default_rng(1).uniform(0.1, 0.2, shape)
    more = [_ints(*shape, kind=kind)] if zero else []
    options = {"axis": 1, "block_size": 2} if len(shape) == 2 else {}
    check("DequantizeLinear", x, scale, *more, exact=False, tolerance=1e-2, **options)


def _chain(inner: str, *, axis: int, scale: np.ndarray, zero: np.ndarray) -> onnx.ModelProto:
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[4,6] x) => (float y) {{
        q = QuantizeLinear<axis={axis}>(x, scale, zero)
        {inner}
        y = DequantizeLinear<axis={axis}>(moved, scale, zero)
    }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend([numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")])
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize(
    "inner",
    [
        "moved = Identity(q)",
        "a = Transpose(q) moved = Transpose(a)",
        "h, l = Split<num_outputs=2>(q) moved = Concat<axis=0>(l, h)",
    ],
)
def test_straight_through(inner: str) -> None:
    """Within the range the gradient is that of what moves; outside it is zero."""
    scale, zero = np.linspace(0.01, 0.02, 6, dtype=np.float32), np.arange(6, dtype=np.int8)
    model = _chain(inner, axis=1, scale=scale, zero=zero)
    found = differentiate(model, wrt=["x"]).model
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32) * 2
    g = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    grad = evaluate(found, {"x": x, "d:y": g}, False)[0]
    inside = np.abs(np.round(x / scale) + zero + 0.5) < 128
    assert 0 < inside.sum() < inside.size
    order = [2, 3, 0, 1] if "Split" in inner else [0, 1, 2, 3]
    assert grad == pytest.approx(np.where(inside, g[order], 0), rel=1e-5)
    with pytest.raises(GradientError, match="scale"):
        vjp(model, wrt=["scale"])


def test_blocks() -> None:
    node = helper.make_node("QuantizeLinear", ["x", "s"], ["q"], axis=1, block_size=2, output_dtype=TensorProto.INT8)
    back = helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=1, block_size=2)
    value = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [2, 5]), ("s", [2, 3]), ("y", [2, 5]))]
    graph = helper.make_graph([node, back], "g", value[:2], value[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found = differentiate(model, wrt=["x"]).model
    x, s = np.linspace(-1, 1, 10, dtype=np.float32).reshape(2, 5), np.full((2, 3), 0.007, np.float32)
    grad = evaluate(found, {"x": x, "s": s, "d:y": np.ones((2, 5), np.float32)}, False)[0]
    assert grad == pytest.approx((np.abs(np.round(x / np.repeat(s, 2, 1)[:, :5]) + 0.5) < 128).astype(np.float32))


def test_integers_stop() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[4,6] x, uint8[6,2] w) => (float[4,2] y) {
        q, s, z = DynamicQuantizeLinear(x)
        m = MatMulInteger(q, w, z)
        f = Cast<to=1>(m)
        y = Mul(f, s)
    }"""
    with pytest.raises(GradientError, match="quantised numbers"):
        vjp(onnx.parser.parse_model(text), wrt=["x"])
