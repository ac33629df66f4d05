from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, parser

from graphprune.gradients import GradientError, differentiate, vjp
from graphprune.gradients.expansion import prepared
from graphprune.model.bodies import subgraphs
from tests.gradients.checking import check_model, evaluate

HEAD = '<ir_version: 10, opset_import: ["" : 18]>'
RNG = np.random.default_rng(0)


def _model(text: str) -> ModelProto:
    return parser.parse_model(HEAD + text)


def _ops(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for inner in subgraphs(node):
            yield from _ops(inner)


BRANCHES = """
g (bool c, bool e, double[2,3] x) => (double[2,4] y, double[2,4] z)
<double[3,4] w = {1,-2,3,-1,2,-3,1,2,3,4,-1,2}> {
  h = Tanh (x)
  y, z = If (c) <
    then_branch = one () => (double[2,4] p, double[2,4] q) {
      v = Constant <value = double[4] {1, 2, 3, 4}> ()
      m = MatMul (h, w)
      n = If (e) <
        then_branch = two () => (double[2,4] r) { r = Mul (m, v) },
        else_branch = three () => (double[2,4] r) { r = Exp (m) }>
      p = Add (n, v)
      q = Sin (n)
    },
    else_branch = four () => (double[2,4] p, double[2,4] q)
    <double[4] v = {5, 6, 7, 8}> {
      s = MatMul (x, w)
      p = Sub (s, v)
      t = Mul (p, v)
      q = Identity (t)
    }>
}"""


@pytest.mark.parametrize("c", [False, True])
@pytest.mark.parametrize("e", [False, True])
def test_branches(c: bool, e: bool) -> None:
    model = _model(BRANCHES)
    x = RNG.standard_normal((2, 3))
    grads = check_model(model, {"c": np.array(c), "e": np.array(e), "x": x}, ["x", "w"])
    both = differentiate(model).model
    names = [o.name for o in both.graph.output]
    assert names[0] == "d:w" and len(names) == 3  # the two constants called v are told apart
    assert grads["x"].any() and grads["w"].any()


SCAN = """
g (double[2,3] h0, double[2,T,3] x, double[T] u, int64 n) => (double[2,3] h, int64 count, double[2,3,T] ys, double[T] s)
<double[3,3] w = {0.1,-0.2,0.3,-0.1,0.2,-0.3,0.1,0.2,0.3}> {
  k = Exp (h0)
  h, count, ys, s = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [1, 0],
      scan_output_axes = [-1, 0], scan_output_directions = [0, 1], body = step (a, i, xt, ut) => (b, j, y, r) {
    one = Constant <value = int64 {1}> ()
    zero = Constant <value = int64 {0}> ()
    two = Constant <value = int64 {2}> ()
    j = Add (i, one)
    left = Mod (i, two)
    odd = Equal (left, zero)
    p = MatMul (a, w)
    q = Add (p, xt)
    v = If (odd) <then_branch = t () => (v1) { v1 = Mul (q, k) }, else_branch = e () => (v2) { v2 = Mul (q, ut) }>
    b = Tanh (v)
    y = Mul (b, a)
    m = ReduceSum <keepdims = 0> (y)
    r = Mul (m, ut)
  }> (h0, n, x, u)
}"""


@pytest.mark.parametrize("steps", [1, 3, 70])
@pytest.mark.parametrize("static", [False, True])
def test_scan(steps: int, static: bool) -> None:
    model = _model(re.sub(r"\bT\b", str(steps), SCAN) if static else SCAN)
    feeds = {
        "h0": RNG.standard_normal((2, 3)),
        "x": RNG.standard_normal((2, steps, 3)),
        "u": RNG.standard_normal(steps),
        "n": np.array(0),
    }
    check_model(model, feeds, ["h0", "x", "u", "w"])
    left = set(_ops(prepared(model)[0].graph))
    assert ("Scan" in left) == (not static or steps == 70)


def test_of_a_captured_tensor_alone() -> None:
    text = """g (double[2,3] h0, double[70,2,3] x) => (double[2,3] h, double[70,2,3] y)
    <double[3,3] w = {0.1,-0.2,0.3,-0.1,0.2,-0.3,0.1,0.2,0.3}, double[3] v = {1, 2, 3}> {
      h, y = Scan <num_scan_inputs = 1, body = step (a, xt) => (b, y1) {
        p = MatMul (a, w) q = Add (p, xt) b = Tanh (q) y1 = Mul (a, v) }> (h0, x)
    }"""
    feeds = {"h0": RNG.standard_normal((2, 3)), "x": RNG.standard_normal((70, 2, 3))}
    model = _model(text)
    for wrt in (["w"], ["v"], ["h0"], ["x"], None):
        check_model(model, feeds, wrt)
    states = [n for n in differentiate(model, wrt=["v"]).model.graph.node if n.op_type == "Scan"][-1]
    assert len(states.input) == 1 + 2  # what is carried: the sum alone, no gradient of the state


LOOP = """
g (double[2,3] h0, int64 n) => (double[2,3] h, double[M,2,3] ys)
<double[3,3] w = {0.1,-0.2,0.3,-0.1,0.2,-0.3,0.1,0.2,0.3}> {
  trips = Constant <value = int64 {TRIPS}> ()
  yes = Constant <value = bool {1}> ()
  h, ys = Loop <body = step (int64 i, bool go, double[2,3] a) => (bool on, double[2,3] b, double[2,3] y) {
    on = Identity (go)
    d = Cast <to = 11> (i)
    p = MatMul (a, w)
    q = Add (p, d)
    b = Tanh (q)
    y = Mul (b, d)
  }> (COUNT, yes, h0)
}"""


@pytest.mark.parametrize("trips", [1, 5, 80])
@pytest.mark.parametrize("given", [False, True])
def test_loop(trips: int, given: bool) -> None:
    text = LOOP.replace("COUNT", "n" if given else "trips").replace("TRIPS", str(trips))
    model = _model(text.replace("M,", f"{trips},"))
    check_model(model, {"h0": RNG.standard_normal((2, 3)), "n": np.array(trips)}, ["h0", "w"])
    left = set(_ops(prepared(model)[0].graph))
    assert ("Scan" in left) == (given or trips == 80)


GROWS = """
g (double[1,3] h0, int64 n, bool go) => (double[N,3] h)
<double[3] w = {0.1,-0.2,0.3}> {
  trips = Constant <value = int64 {4}> ()
  f = Mul (h0, w)
  h = Loop <body = step (int64 i, bool c, double[P,3] a) => (bool on, double[Q,3] b) {
    on = Constant <value = bool {1}> ()
    s = Sin (a)
    b = Concat <axis = 0> (a, s)
  }> (COUNT, GO, f)
}"""


def test_a_loop_whose_states_grow() -> None:
    h0 = RNG.standard_normal((1, 3))
    known = _model(GROWS.replace("COUNT", "trips").replace("GO", ""))
    check_model(known, {"h0": h0, "n": np.array(4), "go": np.array(True)}, ["h0", "w"])
    for count, go in (("n", ""), ("trips", "go"), ("", "go")):
        model = _model(GROWS.replace("COUNT", count).replace("GO", go))
        found = differentiate(model)
        assert [(s.tensor, s.op) for s in found.stopped] == [("w", "Loop")]
        with pytest.raises(GradientError, match=r"'w' has no gradient: Loop node 'h' stops it .how often it runs"):
            vjp(model, wrt=["w"])


def test_constant_condition() -> None:
    text = """g (double[2] x) => (double[2] y) <bool c = {1}> {
      y = If (c) <then_branch = t () => (p) { p = Sin (x) }, else_branch = e () => (q) { q = Cos (x) }> }"""
    model = _model(text)
    check_model(model, {"x": RNG.standard_normal(2)}, ["x"])
    assert "If" not in set(_ops(prepared(model)[0].graph))


def test_stops_in_bodies_are_named() -> None:
    text = """g (bool c, double[3,3] x) => (double[3,3] y, double z)
    <double[3,3] w = {1,2,3,4,5,6,7,8,10}, double v = {2}> {
      y, z = If (c) <
        then_branch = t () => (p, r) { [inverse] p = Det2 (w)  r = Mul (v, v) },
        else_branch = e () => (q, s) { q = Mul (x, v)  s = Mul (v, v) }>
    }"""
    model = _model(
        text.replace("Det2 (w)", "Unique (w)")
        .replace("p = Unique", "u = Unique")
        .replace("(w)  r", "(w) p = Mul (w, v)  r")
        .replace("r = Mul (v, v) }", "r = ReduceSum <keepdims = 0> (u) }")
    )
    found = differentiate(model)
    assert [s.tensor for s in found.stopped] == ["w"]
    assert "If" in str(found.stopped[0]) and "Unique node 'inverse'" in str(found.stopped[0])
    assert [o.name for o in found.model.graph.output] == ["d:v"]


SIZED = """
g (float[B,1,3] x, float[3] v) => (float[K] y) {
  s = Shape (x)
  at = Constant <value = int64 {1}> ()
  one = Constant <value = int64 {1}> ()
  n = Gather (s, at)
  c = Equal (n, one)
  r = If (c) <
    then_branch = t () => (p) { axes = Constant <value = int64[1] {1}> () p = Squeeze (x, axes) },
    else_branch = e () => (q) { q = Identity (x) }>
  z = Mul (r, v)
  all = Constant <value = int64[1] {-1}> ()
  y = Reshape (z, all)
}"""


@pytest.mark.parametrize("shape", [(2, 1, 3), (2, 4, 3)])
@pytest.mark.parametrize("static", [False, True])
def test_branches_by_size(shape: tuple[int, ...], static: bool) -> None:
    """Exporters write such an If where Python would squeeze an axis; the rank of what follows shows with sizes."""
    model = _model(SIZED.replace("B,1", "B,N").replace("float", "double"))
    feeds = {"x": RNG.standard_normal(shape), "v": RNG.standard_normal(3)}
    sizes = {name: value.shape for name, value in feeds.items()} if static else None
    check_model(model, feeds, ["x", "v"], input_shapes=sizes)
    assert ("If" in set(_ops(prepared(model, sizes)[0].graph))) != static


def test_states_of_half_precision() -> None:
    """Gradients are carried in single."""
    text = """g (KIND[2,3] h0, KIND[70,2,3] x) => (KIND[2,3] h) <float[3] v = {0.5, -0.5, 1}> {
      w = Cast <to = CODE> (v)
      h = Scan <num_scan_inputs = 1, body = step (a, xt) => (b) { p = Mul (a, w) q = Add (p, xt) b = Tanh (q) }> (h0, x)
    }"""
    found = []
    h0, x, seed = (RNG.standard_normal(s).astype(np.float16) for s in ((2, 3), (70, 2, 3), (2, 3)))
    for kind, code, dtype in (("float16", "10", np.float16), ("float", "1", np.float32)):
        model = vjp(_model(text.replace("KIND", kind).replace("CODE", code)), wrt=["v", "x"])
        feeds = {"h0": h0.astype(dtype), "x": x.astype(dtype), "d:h": seed.astype(np.float32)}
        found.append(evaluate(model, feeds, False))
    for half, single in zip(*found, strict=True):
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, single, atol=2e-2)


def test_a_branch_that_is_not_taken_may_not_fit_the_sizes() -> None:
    """Nothing is decided in it: what it would squeeze has another size, and what follows takes another rank."""
    text = """g (bool c, double[2,N,3] x) => (double y) <double[1,3,2] w = {1,2,3,4,5,6}> {
      y = If (c) <
        then_branch = t () => (p) { s = Sin (x) p = ReduceSum <keepdims = 0> (s) },
        else_branch = e () => (q) {
          size = Shape (x)
          at = Constant <value = int64 {1}> ()
          n = Gather (size, at)
          one = Equal (n, at)
          r = If (one) <
            then_branch = a () => (k) { axis = Constant <value = int64[1] {1}> () k = Squeeze (x, axis) },
            else_branch = b () => (m) { m = Identity (x) }>
          f = Transpose <perm = [1, 0]> (r)
          both = Constant <value = int64[2] {0, 1}> ()
          q = ReduceSum <keepdims = 0> (f, both)
        }>
    }"""
    assert list(_ops(prepared(_model(text), {"x": (2, 4, 3)})[0].graph)).count("If") == 2
