from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, parser

from graphprune.gradients import GradientError, differentiate, vjp
from graphprune.gradients.expansion import prepared
from graphprune.model.bodies import subgraphs
from tests.gradients.checking import check_model

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
