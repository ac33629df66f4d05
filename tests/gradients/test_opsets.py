"""Models of older opsets compute the same in the form that rules see, and gradients follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from graphprune.gradients import GradientError, differentiate, vjp
from graphprune.gradients.opsets import CHANGES, upgrade
from tests.gradients.checking import evaluate

X = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)
OLD: list[tuple[str, int, dict[str, Any], list[Any], int]] = [
    ("BatchNormalization", 7, {"epsilon": 1e-3}, [IMAGE, *np.ones((4, 2), np.float32)], 1),
    ("BatchNormalization", 9, {}, [IMAGE, *np.ones((4, 2), np.float32)], 1),
    ("Clip", 7, {"min": 0.7, "max": 1.2}, [X], 1),
    ("Clip", 10, {"max": 1.2}, [X], 1),
    ("Clip", 10, {}, [X], 1),
    ("Dropout", 7, {"ratio": 0.3}, [X], 1),
    ("Dropout", 10, {}, [X], 1),
    ("Hardmax", 11, {}, [X], 1),
    ("LogSoftmax", 11, {}, [X], 1),
    ("LogSoftmax", 12, {"axis": 0}, [X], 1),
    ("Pad", 7, {"pads": [0, 1, 0, 0, 0, 2], "value": 0.5}, [X], 1),
    ("Pad", 10, {"pads": [0, 1, 0, 0, 0, 2], "mode": "reflect"}, [X], 1),
    ("ReduceSum", 11, {"axes": [1]}, [X], 1),
    ("ReduceSum", 11, {"keepdims": 0}, [X], 1),
    ("Resize", 10, {}, [IMAGE, np.array([1, 1, 2, 1.5], np.float32)], 1),
    ("Resize", 10, {}, [IMAGE, np.array([1, 1, 0.7, 0.6], np.float32)], 1),
    ("Resize", 10, {"mode": "linear"}, [IMAGE, np.array([1, 1, 0.7, 1.6], np.float32)], 1),
    ("Scatter", 9, {"axis": 1}, [X, np.zeros((2, 1, 4), np.int64), X[:, 1:2]], 1),
    ("Slice", 9, {"starts": [1, 0], "ends": [3, -1], "axes": [1, 2]}, [X], 1),
    ("Slice", 7, {"starts": [1, 0], "ends": [3, 2]}, [X], 1),
    ("Softmax", 7, {"axis": 1}, [X], 1),
    ("Softmax", 12, {"axis": 2}, [X], 1),
    ("Softmax", 12, {"axis": -2}, [X], 1),
    ("Split", 11, {"axis": 2, "split": [1, 3]}, [X], 2),
    ("Split", 7, {"axis": 2}, [X], 2),
    ("Split", 13, {"axis": 2}, [X, np.array([3, 1])], 2),
    ("Squeeze", 11, {"axes": [1]}, [X[:, :1]], 1),
    ("Squeeze", 11, {}, [X[:, :1]], 1),
    ("TopK", 9, {"k": 2}, [X], 2),
    ("Unsqueeze", 11, {"axes": [0, 2]}, [X], 1),
    ("Upsample", 7, {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}, [IMAGE], 1),
    ("Upsample", 9, {"mode": "linear"}, [IMAGE, np.array([1, 1, 2, 2], np.float32)], 1),
    *(
        (f"Reduce{n}", 13, {"axes": [0, 2]}, [X], 1)
        for n in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"]
    ),
    *((f"Reduce{n}", 11, {"axes": [-1], "keepdims": 0}, [X], 1) for n in ["Max", "Mean", "Prod"]),
]


def _model(
    op: str, opset: int, attributes: dict[str, Any], inputs: list[Any], outputs: int, static: bool
) -> ModelProto:
    names = [f"x{i}" for i in range(len(inputs))]
    declared, constants = [], []
    for i, (name, value) in enumerate(zip(names, inputs, strict=True)):
        if i == 0:
            dims = list(value.shape) if static else [f"d{k}" for k in range(value.ndim)]
            declared.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        else:
            constants.append(onnx.numpy_helper.from_array(value, name))
    made = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, made, **attributes)],
        "old",
        declared,
        [onnx.ValueInfoProto(name=y) for y in made],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(("op", "opset", "attributes", "inputs", "outputs"), OLD)
def test_upgraded_computes_the_same(
    op: str, opset: int, attributes: dict[str, Any], inputs: list[Any], outputs: int, static: bool
) -> None:
    model = _model(op, opset, attributes, inputs, outputs, static)
    new = upgrade(model)
    assert new.opset_import[0].version == 18
    context = onnx.checker.DEFAULT_CONTEXT
    context.opset_imports, context.ir_version = {"": 18}, 8
    for node in new.graph.node:
        onnx.checker.check_node(node, context)
    for one, two in zip(
        evaluate(model, {"x0": inputs[0]}, False), evaluate(new, {"x0": inputs[0]}, False), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_every_change_is_tested() -> None:
    assert {op for op, *_ in OLD} == set(CHANGES) - {"Scan"}


@pytest.mark.parametrize("opset", range(7, 24))
def test_all_opsets(opset: int) -> None:
    axes = "<axes = [1]> (x)" if opset < 13 else "(x, one)"
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[2,1,3] x) => (float[2,4] y) <float[3,4] w = {{1,2,3,4,5,6,7,8,9,1,2,3}}, int64[1] one = {{1}}> {{
      s = Squeeze {axes}  m = MatMul (s, w)  y = Softmax (m)
    }}"""
    model = parser.parse_model(text)
    x, seed = X[:, :1, :3], X[:, 0, :4].copy()
    found = differentiate(model, wrt=["x", "w"]).model
    dx, dw = evaluate(found, {"x": x, "d:y": seed}, False)
    y = evaluate(model, {"x": x}, False)[0]
    dm = y * (seed - (seed * y).sum(-1, keepdims=True))
    w = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3], np.float32).reshape(3, 4)
    np.testing.assert_allclose(dx, (dm @ w.T)[:, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dw, x[:, 0].T @ dm, rtol=1e-4, atol=1e-5)


def test_nearest_of_longer_and_shorter_axes() -> None:
    model = _model("Resize", 10, {}, [IMAGE, np.array([1, 1, 0.7, 1.6], np.float32)], 1, True)
    with pytest.raises(GradientError, match="Resize node 'y0' makes some axes longer and others shorter"):
        upgrade(model)


def test_what_is_too_old() -> None:
    with pytest.raises(GradientError, match="opset 6; gradients need 7 or above"):
        vjp(_model("Relu", 6, {}, [X], 1, True))
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "ab"],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "cd"],
    )
    node = helper.make_node("Scan", ["", "h", "x"], ["e", "f"], "loop", body=body, num_scan_inputs=1)
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "hxef"}
    graph = helper.make_graph([node], "g", [values["h"], values["x"]], [values["e"], values["f"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=8)
    with pytest.raises(GradientError, match="Scan node 'loop' is of opset 8"):
        vjp(model)
