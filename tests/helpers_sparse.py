"""Whether weights follow an N:M pattern, by onnx and numpy alone."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper
from onnx.reference import ReferenceEvaluator

from tests.helpers import constants


def weights(model: ModelProto) -> dict[str, tuple[np.ndarray, int]]:
    """By node the weight that a Conv, MatMul or Gemm reads, and the axis that it sums over."""
    known, found = dict(constants(model)), {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            for k in (0, 1):
                if node.input[k] in known:
                    value = np.asarray(known[node.input[k]])
                    found[node.name or node.output[0]] = value, _axis(node, k, value.ndim)
        elif node.input and all(n in known for n in node.input if n) and node.op_type != "ConstantOfShape":
            known.update(_computed(model, node, known))
    return found


def _axis(node: NodeProto, k: int, rank: int) -> int:
    if node.op_type == "Conv":
        return 1
    turned = next((a.i for a in node.attribute if a.name == ("transA", "transB")[k]), 0)
    return (rank - 1 if k == 0 else max(rank - 2, 0)) if not turned else (rank - 2 if k == 0 else rank - 1)


def _computed(model: ModelProto, node: NodeProto, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [n for n in node.input if n]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(known[n].dtype), known[n].shape) for n in names
    ]
    outputs = [helper.make_empty_tensor_value_info(o) for o in node.output]
    graph = helper.make_graph([node], "one", inputs, outputs)
    opsets = [o for o in model.opset_import if o.domain not in ("", "ai.onnx")]
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        version = max(version, 19)  # the oldest that the reference knows; they mean the same
    one = helper.make_model(graph, opset_imports=[*opsets, helper.make_opsetid("", version)], ir_version=10)
    try:
        made = ReferenceEvaluator(one).run(None, {n: known[n] for n in names})
    except (RuntimeError, NotImplementedError, TypeError):  # an operator that the reference does not know
        return {}
    return {o: np.asarray(v) for o, v in zip(node.output, made, strict=True)}


def follows(value: np.ndarray, axis: int, n: int = 2, m: int = 4) -> bool:
    """At most ``n`` of every ``m`` elements along an axis differ from zero."""
    moved = np.moveaxis(value, axis, -1)
    filled = np.pad(moved, [*[(0, 0)] * (moved.ndim - 1), (0, -moved.shape[-1] % m)])
    return bool(((filled.reshape(-1, m) != 0).sum(1) <= n).all()) and moved.shape[-1] >= m
