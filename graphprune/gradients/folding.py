"""Sizes that a graph computes, and what it decides by them, where they show before it runs; ranks that others tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from graphprune.gradients.terms import Array, Dims
from graphprune.model.bodies import subgraphs

_OPS = frozenset(
    """
    Add And Cast Concat ConstantOfShape Div Equal Expand Gather Greater GreaterOrEqual Identity Less LessOrEqual Max Min
    Mod Mul Neg Not Or Range ReduceProd Reshape Shape Size Slice Squeeze Sub Unsqueeze Where Xor
    """.split()  # noqa: SIM905
)
_RANKED = dict.fromkeys(
    """
    AveragePool BatchNormalization Cast Clip Dropout Elu Exp Gelu HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Log LogSoftmax MaxPool Neg Pad Relu Sigmoid Slice Softmax Sqrt Tanh Transpose
    """.split(),  # noqa: SIM905
    1,
) | dict.fromkeys(["Add", "Div", "Mul", "Pow", "Sub"], 2)
"""Operators whose output has as many dimensions as their first inputs, so many of these, have at most."""
_SMALL = 1024
"""Elements that a value may have."""
_GROWS: dict[str, Callable[[Sequence[Array]], int]] = {
    "ConstantOfShape": lambda read: _elements(read[0]),
    "Expand": lambda read: _elements(read[1]),
    "Range": lambda read: abs(read[1].item() - read[0].item()) // max(abs(read[2].item()), 1),
}
"""Operators whose output may be far larger than what they read: how many elements it has at least."""


def fold(
    graph: GraphProto, opset: int, dims: dict[str, Dims], value: Callable[[str], Array | None], found: dict[str, Array]
) -> None:
    """Whole numbers and booleans that follow from constants and from sizes that are known.

    Branches of an If are left alone: one that is not taken may make no sense with these sizes.

    Args:
        graph: in an order in which it can run.
        opset: version of ONNX's own operators.
        dims: of its tensors; ranks are added that operators tell of tensors of which nothing is known.
        value: of a constant or of what was found.
        found: where they go.
    """
    for node in graph.node:
        if node.op_type == "If":
            for branch in subgraphs(node):
                _ranks(branch, dims)
            continue
        for inner in subgraphs(node):
            fold(inner, opset, dims, value, found)
        if node.domain in ("", "ai.onnx"):
            _rank(node, dims)
            result = _value(node, opset, dims, value) if node.op_type in _OPS else None
            if result is not None:
                found[node.output[0]] = result


def _ranks(graph: GraphProto, dims: dict[str, Dims]) -> None:
    for node in graph.node:
        for inner in subgraphs(node):
            _ranks(inner, dims)
        if node.domain in ("", "ai.onnx"):
            _rank(node, dims)


def _rank(node: NodeProto, dims: dict[str, Dims]) -> None:
    """What a convolution reads and writes has as many dimensions as its weight; others keep those of what they read."""
    if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in dims:
        for name in (node.input[0], node.output[0]):
            dims.setdefault(name, (None,) * len(dims[node.input[1]]))
    elif node.op_type in _RANKED and node.output[0] not in dims:
        read = [dims.get(name) for name in node.input[: _RANKED[node.op_type]]]
        ranks = [len(d) for d in read if d is not None]
        if len(ranks) == len(read):
            dims[node.output[0]] = (None,) * max(ranks)


def _elements(shape: Array) -> int:
    return prod(int(d) for d in shape.reshape(-1))


def _value(node: NodeProto, opset: int, dims: dict[str, Dims], value: Callable[[str], Array | None]) -> Array | None:
    if node.op_type in ("Shape", "Size"):
        return _measured(node, dims.get(node.input[0]))
    read: dict[str, Array] = {}
    for name in filter(None, node.input):
        held = value(name)
        if held is None or held.dtype.kind not in "bi" or held.size > _SMALL:
            return None
        read[name] = held
    kinds = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in read.items()
    ]
    end = helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)
    proto: ModelProto = helper.make_model(
        helper.make_graph([node], "fold", kinds, [end]), opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )
    try:
        if node.op_type in _GROWS and _GROWS[node.op_type]([read[name] for name in node.input]) > _SMALL:
            return None
        found = np.asarray(next(iter(ReferenceEvaluator(proto).run(None, read))))
    except Exception:  # a node that would fail at run time too, in a branch that is not taken
        return None
    return found if found.dtype.kind in "bi" and found.size <= _SMALL else None


def _measured(node: NodeProto, dims: Dims | None) -> Array | None:
    """Shape and Size, of dimensions that are needed alone."""
    if dims is None:
        return None
    held = {a.name: a.i for a in node.attribute}
    wanted: Sequence[object] = dims[held.get("start", 0) : held.get("end")]
    sizes = [d for d in wanted if isinstance(d, int)]
    if len(sizes) != len(wanted):
        return None
    return np.asarray(sizes if node.op_type == "Shape" else np.prod(sizes, dtype=np.int64), np.int64)
