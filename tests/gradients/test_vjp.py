"""What is differentiated, by what, under which names; what stops, and how that is told."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, external_data_helper, helper, numpy_helper, parser

from graphprune.gradients import GradientError, differentiate, vjp
from tests.gradients.checking import check_model, evaluate

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'
RNG = np.random.default_rng(0)


def _model(text: str, head: str = HEAD) -> ModelProto:
    return parser.parse_model(head + text)


def _names(model: ModelProto) -> tuple[list[str], list[str]]:
    return [i.name for i in model.graph.input], [o.name for o in model.graph.output]


STOPPED = """
g (float[3,3] x) => (float[3,3] y, float z)
<float[3,3] a = {1,2,3,4,5,6,7,8,10}, float[3] b = {1,2,3}, float[3] c = {1,2,3}, float[3] d = {1, 2, 3}> {
  p = MatMul (x, a)
  q = Mul (p, b)
  [inverse] u, n = Unique (q)
  r = Relu (u)
  z = ReduceSum <keepdims = 0> (r)
  y = Mul (p, c)
}"""


def test_what_an_operator_without_a_rule_stops() -> None:
    """All weights on some path through it have no gradient, also where another path has one."""
    model = _model(STOPPED)
    found = differentiate(model)
    assert [str(s) for s in found.stopped] == [
        f"{name!r} has no gradient: Unique node 'inverse' stops it ({found.stopped[0].reason})" for name in "ab"
    ]
    assert _names(found.model) == (["x", "d:y", "d:z"], ["d:c", "d:d"])
    x, seed = RNG.standard_normal((2, 3, 3)).astype(np.float32)
    dc, dd = evaluate(found.model, {"x": x, "d:y": seed, "d:z": np.array(2, np.float32)}, False)
    a = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10], np.float32).reshape(3, 3)
    np.testing.assert_allclose(dc, (seed * (x @ a)).sum(0), rtol=1e-4)
    assert not dd.any()
    for name in "abx":
        with pytest.raises(GradientError, match=f"'{name}' has no gradient: Unique node 'inverse' stops it"):
            vjp(model, wrt=["c", name])
    assert _names(vjp(model, ["y"], ["a", "x"])) == (["x", "d:y"], ["d:a", "d:x"])  # what is not asked does not stop


def test_tensors_that_nodes_make_have_gradients_too() -> None:
    """Beside those of weights behind them, and of all that reads them; what lies in a body is none of the graph's."""
    model = _model("""
    g (float[3,4] x) => (float[3,2] y)
    <float[4,2] w = {1,2,3,4,5,6,7,8}, float[2] b = {1,-40}> {
      p = MatMul (x, w)
      q = Add (p, b)
      r = Relu (q)
      y = Mul (r, p)
    }""")
    x, seed = RNG.standard_normal((3, 4)).astype(np.float32), RNG.standard_normal((3, 2)).astype(np.float32)
    found = vjp(model, wrt=["p", "w", "q"])
    assert _names(found) == (["x", "d:y"], ["d:p", "d:w", "d:q"])
    dp, dw, dq = evaluate(found, {"x": x, "d:y": seed}, False)
    p = x @ np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    on = p + np.array([1, -40], np.float32) > 0
    np.testing.assert_allclose(dq, seed * p * on, rtol=1e-4)
    np.testing.assert_allclose(dp, dq + seed * np.maximum(p + np.array([1, -40], np.float32), 0), rtol=1e-4)
    np.testing.assert_allclose(dw, x.T @ dp, rtol=1e-4, atol=1e-5)
    assert sum(node.op_type == "Sum" for node in found.graph.node) == 1, "a sum of parts is written once"
    inner = _model("g (bool c, float[2] x) => (float[2] y) "
                   "{ y = If (c) <then_branch = t () => (float[2] a) { h = Neg (x) a = Neg (h) }, "
                   "else_branch = e () => (float[2] f) { f = Neg (x) }> }")  # fmt: skip
    with pytest.raises(GradientError, match="'h' lies in a body of a node"):
        vjp(inner, wrt=["h"])


def test_names_of_others_are_refused() -> None:
    model = _model(STOPPED)
    with pytest.raises(GradientError, match="no tensor 'nobody'"):
        vjp(model, ["nobody"])
    with pytest.raises(GradientError, match="no tensor 'nobody'"):
        vjp(model, wrt=["nobody"])
    with pytest.raises(GradientError, match="no tensor 'nobody'"):
        vjp(model, keep=["nobody"])
    with pytest.raises(GradientError, match="'n' is of type int64; gradients are of floats"):
        vjp(model, ["n"])
    with pytest.raises(GradientError, match="no input 'w' that could have a shape"):
        vjp(model, input_shapes={"w": (1,)})


def test_functions_of_the_model() -> None:
    model = _model(
        """g (double[2,3] x) => (double[2,3] y) <double[3,3] w = {1,2,3,4,5,6,7,8,9}> {
          h = own.layer <alpha = 2.0> (x, w)
          y = own.layer <alpha = 3.0> (h, w)
        }
        <domain: "own", opset_import: ["" : 18]>
        layer <alpha> (a, b) => (c) {
          s = Constant <value_float = @alpha> ()
          k = Cast <to = 11> (s)
          p = MatMul (a, b)
          q = Mul (p, k)
          c = Sin (q)
        }""",
        '<ir_version: 10, opset_import: ["" : 18, "own" : 1]>',
    )
    check_model(model, {"x": RNG.standard_normal((2, 3)) * 0.1}, ["w", "x"], tolerance=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_precision_adds_up_in_single(kind: int) -> None:
    """4096 ones times 1 and one element: sums that half precision cannot hold."""
    w = helper.make_tensor("w", kind, [1, 1], [1.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "half",
        [helper.make_tensor_value_info("x", kind, [4099, 1])],
        [helper.make_tensor_value_info("y", kind, [4099, 1])],
        [w],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = vjp(model, wrt=["w", "x"])
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*found.graph.input, *found.graph.output)}
    assert kinds == {"x": kind, "d:y": TensorProto.FLOAT, "d:w": TensorProto.FLOAT, "d:x": TensorProto.FLOAT}
    if kind == TensorProto.FLOAT16:  # ONNX Runtime has no MatMul of bfloat16 on CPUs
        dw, dx = evaluate(found, {"x": np.ones((4099, 1), np.float16), "d:y": np.ones((4099, 1), np.float32)}, False)
        assert dw.item() == 4099 and (dx == 1).all()
    backward = {t.name for t in found.graph.initializer} | {o for n in found.graph.node for o in n.output}
    casts = [n for n in found.graph.node if n.op_type == "Cast"]
    assert casts and all(n.output[0] in backward for n in casts)


def test_external_data_stays_where_it_is(tmp_path: Path) -> None:
    model = _model("g (float[2,40] x) => (float[2,40] y) { y = MatMul (x, w) }")
    w = RNG.standard_normal((40, 40)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    outside = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert external_data_helper.uses_external_data(outside.graph.initializer[0])
    found = vjp(outside, wrt=["x", "w"])
    held = next(t for t in found.graph.initializer if t.name == "w")
    assert not held.raw_data and held.external_data == outside.graph.initializer[0].external_data
    onnx.save(found, tmp_path / "vjp.onnx")
    found = onnx.load(tmp_path / "vjp.onnx")
    x, seed = RNG.standard_normal((2, 2, 40)).astype(np.float32)
    dx, dw = evaluate(found, {"x": x, "d:y": seed}, False)
    np.testing.assert_allclose(dx, seed @ w.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dw, x.T @ seed, rtol=1e-4, atol=1e-4)


def test_constants_of_all_kinds() -> None:
    model = _model(
        """g (double[2] x, double[2] old) => (double[2] y) <double[2] old = {3, 4}, double[2] w = {5, 6}> {
          k = Constant <value = double[2] {1, 2}> ()
          p = Mul (x, k)
          q = Mul (p, old)
          y = Mul (q, w)
        }""",
    )
    assert {"old"} == {t.name for t in model.graph.initializer} & {i.name for i in model.graph.input}
    grads = check_model(model, {"x": RNG.standard_normal(2)}, ["k", "old", "w", "x"])
    assert all(g.any() for g in grads.values())
    inputs, outputs = _names(vjp(model))
    assert inputs == ["x", "d:y"] and sorted(outputs) == ["d:k", "d:old", "d:w"]


def test_outputs_that_are_constants_or_inputs() -> None:
    model = _model(
        """g (double[2] x) => (double[2] x, double[2] w, double[2] y) <double[2] w = {5, 6}> { y = Mul (x, w) }"""
    )
    for name in "xw":
        with pytest.raises(GradientError, match=f"'{name}' is an output, and its gradient is asked for"):
            vjp(model, wrt=[name])
    x, w = np.array([1.0, 2.0]), np.array([5.0, 6.0])
    seed, other = RNG.standard_normal((2, 2))
    found = vjp(model, ["w", "y"], ["x"])
    np.testing.assert_allclose(evaluate(found, {"x": x, "d:w": other, "d:y": seed}, False)[0], seed * w)
    found = vjp(model, ["x", "y"], ["w"])
    np.testing.assert_allclose(evaluate(found, {"x": x, "d:x": other, "d:y": seed}, False)[0], seed * x)


def test_inner_tensors_as_outputs() -> None:
    model = _model(
        """g (double[2] x) => (double[2] y) <double[2] w = {5, 6}> { p = Mul (x, w) q = Sin (p) y = Exp (q) }"""
    )
    x, w, seeds = np.array([0.1, 0.2]), np.array([5.0, 6.0]), RNG.standard_normal((2, 2))
    found = vjp(model, ["p", "q"], ["w"], keep=["q", "y"])
    assert _names(found) == (["x", "d:p", "d:q"], ["q", "y", "d:w"])
    q, y, dw = evaluate(found, {"x": x, "d:p": seeds[0], "d:q": seeds[1]}, False)
    np.testing.assert_allclose(q, np.sin(x * w))
    np.testing.assert_allclose(y, np.exp(q))
    np.testing.assert_allclose(dw, (seeds[0] + seeds[1] * np.cos(x * w)) * x)


def test_names_given_twice() -> None:
    model = _model("""g (double[2] x) => (double[2] y) <double[2] w = {5, 6}> { y = Mul (x, w) }""")
    found = vjp(model, ["y", "y"], ["w", "w"], keep=["y", "y"])
    assert _names(found) == (["x", "d:y"], ["y", "d:w"])
    onnx.checker.check_model(found, full_check=True)


def test_names_that_are_taken() -> None:
    """Of a model that has tensors called as gradients are, as the gradient of a gradient."""
    model = _model("""g (double[2] x) => (double[2] y) <double[2] w = {5, 6}> { p = Mul (x, w) y = Exp (p) }""")
    first = vjp(model, wrt=["w"])
    x, w, seeds = np.array([0.1, 0.2]), np.array([5.0, 6.0]), RNG.standard_normal((2, 2))
    second = vjp(first, wrt=["w", "x", "d:y"])
    assert _names(second) == (["x", "d:y", "d:d:w"], ["d:w", "d:x", "d:d:y"])
    e = np.exp(x * w)  # d:w is d:y * e * x
    dw, dx, dy = evaluate(second, {"x": x, "d:y": seeds[0], "d:d:w": seeds[1]}, False)
    np.testing.assert_allclose(dw, seeds[1] * seeds[0] * e * x * x)
    np.testing.assert_allclose(dx, seeds[1] * seeds[0] * (e + e * x * w))
    np.testing.assert_allclose(dy, seeds[1] * e * x)
    with pytest.raises(
        GradientError, match="'d:y' is a tensor of the model, and the gradient of 'y' has this name too"
    ):
        vjp(first, ["y"], ["x"])
    with pytest.raises(
        GradientError, match="'d:w' is a tensor of the model, and the gradient of 'w' has this name too"
    ):
        vjp(first, wrt=["w"], keep=["d:w"])


def test_the_model_is_not_changed() -> None:
    model = _model(STOPPED)
    before = model.SerializeToString(deterministic=True)
    differentiate(model, input_shapes={"x": (3, 3)})
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("op", ["Range(none, many, one)", "Expand(one, wide)", "ConstantOfShape(wide)"])
def test_what_is_large_is_not_computed_ahead(op: str) -> None:
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18]> g (float[2] x) => (float[2] y)
        <int64 none = {{0}}, int64 many = {{4194304}}, int64 one = {{1}}, int64[2] wide = {{2048, 2048}}> {{
        r = {op}
        f = Cast <to = 1> (r)
        s = ReduceMean <keepdims = 0> (f)
        y = Mul (x, s)
    }}""")
    tracemalloc.start()
    try:
        differentiate(model, wrt=["x"])
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
