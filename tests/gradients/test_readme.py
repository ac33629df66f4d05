"""What the page of the room shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune.gradients
from graphprune.gradients import vjp
from graphprune.gradients.expansion import BODIES
from graphprune.gradients.table import RULES
from tests.gradients.checking import evaluate

BLOCKS = re.findall(
    r"```python\n(.*?)```", Path(graphprune.gradients.__file__).with_name("README.md").read_text(), re.S
)


def _model() -> ModelProto:
    """What the page calls ``model``: a convolution, a mean, a product."""
    weights = {"w": (8, 3, 3, 3), "v": (8, 10)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "page",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 10])],
        [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_first_example() -> None:
    held = {"model": _model()}
    exec(BLOCKS[0], held)
    gradients = held["gradients"]
    assert {n: g.shape for n, g in gradients.items()} == {"d:w": (8, 3, 3, 3), "d:v": (8, 10)}  # type: ignore[attr-defined]
    assert gradients["d:v"].any()  # type: ignore[index]


def _one(op: str) -> ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xsy"]
    node = helper.make_node(op, ["x", "s"], ["y"], domain="com.example")
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(helper.make_graph([node], "one", values[:2], values[2:]), opset_imports=imports)
    model.ir_version = 10
    return model


def test_rules_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (RULES, BODIES):
        for key in (("com.example", "ScaledTanh"), ("com.example", "Gate")):
            monkeypatch.setitem(table, key, None)  # put back behind the test
            del table[key]
    for block in BLOCKS[1:]:
        exec(block, {})
    found = vjp(_one("Gate"), wrt=["x", "s"])
    assert {n.op_type for n in found.graph.node} <= {"Sigmoid", "Mul", "Identity", "Sub"}
    x, s, g = np.random.default_rng(0).standard_normal((3, 2, 3)).astype(np.float32)
    dx, ds = evaluate(found, {"x": x, "s": s, "d:y": g}, exact=False)
    gate = 1 / (1 + np.exp(-s))
    assert dx == pytest.approx(g * gate, abs=1e-6) and ds == pytest.approx(g * x * gate * (1 - gate), abs=1e-6)
    assert onnx.checker.check_model(vjp(_one("ScaledTanh"), wrt=["s"])) is None
