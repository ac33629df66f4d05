"""Which nodes are linear operators, and what they read."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from graphprune.linear import Held, Linear
from graphprune.model import Model
from graphprune.values import EVALUATORS

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def find(model: Model, shared: bool = False) -> list[Linear]:
    """Every linear operator of the main graph, in the order of the nodes.

    Args:
        model: the model.
        shared: also those whose weight is read elsewhere.
    """
    found = []
    for index, node in enumerate(model.nodes):
        read = _READERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        linear = read(model, index, node) if read is not None else None
        if linear is not None and (shared or _own(model, linear)):
            found.append(linear)
    return found


def _weight(model: Model, name: str, ranks: Sequence[int]) -> Held | None:
    """The constant of floats behind an input, through nodes that move or convert its elements; None for others."""
    way: list[NodeProto] = []
    while name not in model.sources and name in model.producer and name in model.constant_names:
        node = model.nodes[model.producer[name]]
        if node.op_type not in (*_MOVING, *_CONVERTING) or node.domain not in ("", "ai.onnx"):
            return None
        way.append(node)
        name = node.input[0]
    source = model.sources.get(name)
    if source is None or source.kind == "fill" or source.dtype not in _FLOATS:
        return None
    kind = next((_attributes(n)["to"] for n in way if n.op_type == "Cast"), source.dtype)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    moving = [node for node in reversed(way) if node.op_type in _MOVING]
    if not moving:
        return Held(name, source.shape, dtype) if len(source.shape) in ranks else None
    order: Any = np.arange(prod(source.shape)).reshape(source.shape)
    for node in moving:
        others = [model.root(n) for n in node.input[1:] if n]
        if any(n not in model.sources for n in others):
            return None
        order = EVALUATORS[node.op_type]([order, *map(model.array, others)], _attributes(node), [])
    return Held(name, order.shape, dtype, order) if len(order.shape) in ranks else None


_MOVING = ("Reshape", "Squeeze", "Transpose", "Unsqueeze")
_CONVERTING = ("Cast", "Identity")


def _own(model: Model, linear: Linear) -> bool:
    """Whether nothing else reads the weight of an operator, nor anything between."""
    name = model.nodes[linear.node].input[1]
    while True:
        if len(model.uses.get(name, ())) != 1 or name in model.output_names:
            return False
        if any(name in names for names in model.captured.values()):
            return False
        if name == linear.weight:
            return True
        name = model.nodes[model.producer[name]].input[0]


def _vector(model: Model, name: str, width: int) -> bool:
    """Whether a tensor is a constant with a number for each output."""
    source = model.sources.get(model.root(name))
    return source is not None and source.dtype in _FLOATS and source.shape == (width,)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _conv(model: Model, index: int, node: NodeProto) -> Linear | None:
    held, attributes, bias = _weight(model, node.input[1], (3, 4, 5)), _attributes(node), _third(node)
    if held is None or (bias is not None and not _vector(model, bias, held.shape[0])):
        return None
    groups = attributes.get("group", 1)
    return Linear(
        index, node.input[0], node.output[0], held, bias, groups=groups, kernel=held.shape[2:], attributes=attributes
    )


def _conv_transpose(model: Model, index: int, node: NodeProto) -> Linear | None:
    """Groups read input channels of their own, so that elements of the summed axis belong to one group each."""
    held, attributes, bias = _weight(model, node.input[1], (3, 4, 5)), _attributes(node), _third(node)
    plain = attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"", b"VALID") and "output_shape" not in attributes
    groups = attributes.get("group", 1)
    if not plain or held is None or (bias is not None and not _vector(model, bias, held.shape[1] * groups)):
        return None
    found = Linear(
        index, node.input[0], node.output[0], held, bias, groups=groups, kernel=held.shape[2:], attributes=attributes,
        backward=True,
    )  # fmt: skip
    return found if min(map(min, found.pads(()))) >= 0 else None  # more is cut off than a kernel reaches


def _gemm(model: Model, index: int, node: NodeProto) -> Linear | None:
    held, attributes, bias = _weight(model, node.input[1], (2,)), _attributes(node), _third(node)
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
    transposed = bool(attributes.get("transB"))
    if not plain or held is None or (bias is not None and not _vector(model, bias, held.shape[1 - transposed])):
        return None
    return Linear(index, node.input[0], node.output[0], held, bias, transposed=transposed, attributes=attributes)


def _matmul(model: Model, index: int, node: NodeProto) -> Linear | None:
    held = _weight(model, node.input[1], (2,))
    if held is None:
        return None
    bias, adder = _added(model, node.output[0], held.shape[1])
    return Linear(index, node.input[0], node.output[0], held, bias, adder, slot=None)


def _recurrent(model: Model, index: int, node: NodeProto) -> Linear | None:
    """The product of what a recurrent operator reads; its outputs are the gates of all directions."""
    held = _weight(model, node.input[1], (3,))
    name = next((o for o in node.output if o), "")
    return Linear(index, node.input[0], name, held, slot=None, inner=True) if held is not None and name else None


def _third(node: NodeProto) -> str | None:
    """The bias that a node reads itself."""
    return node.input[2] if len(node.input) > 2 and node.input[2] else None


def _added(model: Model, output: str, width: int) -> tuple[str | None, int | None]:
    """The bias that a following node adds."""
    uses = model.uses.get(output, [])
    if len(uses) != 1 or output in model.output_names or model.nodes[uses[0].node].op_type != "Add":
        return None, None
    other = model.nodes[uses[0].node].input[1 - uses[0].input]
    return (other, uses[0].node) if _vector(model, other, width) else (None, None)


_READERS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "RNN": _recurrent,
}
