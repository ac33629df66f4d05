"""What is known of the tensors of a graph and of the bodies in it before they run: types, dimensions, small constants.

Taken from ONNX's own shape inference, on a copy without weights; with the sizes of the inputs given, most dimensions
are numbers, else they are names that stand for one size each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from graphprune.gradients.errors import GradientError
from graphprune.gradients.folding import fold
from graphprune.gradients.terms import Array, Dim, Dims
from graphprune.model import Model
from graphprune.model.bodies import subgraphs

_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
_SAME = frozenset(
    [
        "BiasAdd",
        "BiasGelu",
        "FastGelu",
        "Gelu",
        "GroupNormalization",
        "MeanVarianceNormalization",
        "QuickGelu",
        "SimplifiedLayerNormalization",
    ]
)
"""Operators, some of com.microsoft, whose first output is like their first input, which inference does not say."""
_SHARED = frozenset(["DequantizeLinear", "GatherND", "GridSample", "QuantizeLinear", "Trilu"])
"""Operators of com.microsoft that are those of ONNX."""
_SMALL = 1024
"""Elements up to which constants stay in the copy: shapes, axes and the like."""


@dataclass
class Known:
    """Types and dimensions of tensors by name, and the constants of the graph.

    Attributes:
        refused: why a node could not be laid open, by its first output.
        kinds: ``TensorProto`` types.
        dims: dimensions as far as they are known.
        constants: initializers and values of Constant nodes.
        opset: version of ONNX's own operators.
        values: small constants that were read, and whole numbers that follow from these and from sizes.
        own: constants that the model had before operators were laid open.
        replaces_nan: whether the model looks for elements that are not numbers, as do those that mask whole rows of a
            softmax.
    """

    opset: int
    refused: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    dims: dict[str, Dims] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    own: list[str] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)
    replaces_nan: bool = False

    def value(self, name: str) -> Array | None:
        """A small constant, or what follows from constants and sizes; None where it is none, or large."""
        tensor = self.constants.get(name)
        if name not in self.values and tensor is not None and not is_large(tensor):
            self.values[name] = numpy_helper.to_array(tensor)
        return self.values.get(name)


def apart(
    model: ModelProto, sizes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[ModelProto, list[TensorProto]]:
    """A model without its large constants, whose places inputs take, and these constants.

    Args:
        model: it is not changed, and no weight is copied.
        sizes: shapes of inputs, which take the place of the model's own.

    Raises:
        GradientError: a shape is for an input that the model does not have.
    """
    proto = ModelProto(ir_version=max(model.ir_version, 8), producer_name=model.producer_name)
    proto.opset_import.extend(model.opset_import)
    proto.functions.extend(model.functions)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(Model(model).nodes)  # in an order in which they can run, which files need not have
    graph.output.extend(model.graph.output)
    large = [t for t in model.graph.initializer if is_large(t)]
    graph.initializer.extend(t for t in model.graph.initializer if not is_large(t))
    weights = {t.name for t in model.graph.initializer}
    inputs = {i.name: i for i in model.graph.input if i.name not in weights}
    for name in sizes or {}:
        if name not in inputs:
            raise GradientError(f"the model has no input {name!r} that could have a shape")
    graph.input.extend(_sized(value, (sizes or {}).get(name)) for name, value in inputs.items())
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in large)
    return proto, large


def infer(model: ModelProto) -> Known:
    """What is known of the tensors of a model without large constants.

    Args:
        model: as :func:`apart` gives it; it is not changed.
    """
    proto = ModelProto()
    proto.CopyFrom(model)
    del proto.graph.output[:]  # declared sizes would stand against those that inputs were given
    proto.graph.output.extend(ValueInfoProto(name=o.name) for o in model.graph.output)
    for node in proto.graph.node:
        _stand_in(node)
    opset = version_of(model)
    known = Known(opset, replaces_nan=_replaces_nan(model.graph))
    _read(known, shape_inference.infer_shapes(proto, data_prop=True).graph)
    for value in model.graph.output:
        kind = value.type.tensor_type.elem_type
        if kind:
            known.kinds.setdefault(value.name, kind)
        if value.type.tensor_type.HasField("shape"):
            known.dims.setdefault(value.name, (None,) * len(value.type.tensor_type.shape.dim))
    _read_constants(known, model.graph)
    fold(model.graph, opset, known.dims, known.value, known.values)
    return known


def version_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that a model is of."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def _replaces_nan(graph: GraphProto) -> bool:
    return any(node.op_type == "IsNaN" or any(map(_replaces_nan, subgraphs(node))) for node in graph.node)


def _stand_in(node: NodeProto) -> None:
    """An operator that inference knows, in place of one of another domain that gives the same types and shapes."""
    for graph in subgraphs(node):
        for inner in graph.node:
            _stand_in(inner)
    if node.op_type in _SAME:
        kept = NodeProto(op_type="Identity", name=node.name, input=node.input[:1], output=node.output[:1])
        node.CopyFrom(kept)
    elif node.op_type == "Scaler" and node.domain == "ai.onnx.ml":
        to = helper.make_attribute("to", TensorProto.FLOAT)
        node.CopyFrom(NodeProto(op_type="Cast", name=node.name, input=node.input, output=node.output, attribute=[to]))
    elif node.op_type in _SHARED and node.domain == "com.microsoft":
        node.domain = ""


def _sized(value: ValueInfoProto, shape: tuple[int, ...] | None) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    if shape is not None:
        copy.type.tensor_type.shape.CopyFrom(
            helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shape).tensor_type.shape
        )
    return copy


def _read(known: Known, graph: GraphProto) -> None:
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type"):
            kind = value.type.tensor_type
            if kind.elem_type:
                known.kinds[value.name] = kind.elem_type
            if kind.HasField("shape"):
                known.dims[value.name] = tuple(_dim(d) for d in kind.shape.dim)
    for node in graph.node:
        for inner in subgraphs(node):
            _read(known, inner)


def _dim(dim: object) -> Dim:
    if dim.HasField("dim_value"):  # type: ignore[attr-defined]
        return int(dim.dim_value)  # type: ignore[attr-defined]
    return str(dim.dim_param) or None  # type: ignore[attr-defined]


def _read_constants(known: Known, graph: GraphProto) -> None:
    for tensor in graph.initializer:
        known.kinds[tensor.name], known.dims[tensor.name] = tensor.data_type, tuple(tensor.dims)
        known.constants[tensor.name] = tensor
    for node in graph.node:
        value = constant(node)
        if value is not None:
            known.kinds[node.output[0]], known.dims[node.output[0]] = value.data_type, tuple(value.dims)
            known.constants[node.output[0]] = value
        for inner in subgraphs(node):
            _read_constants(known, inner)


def constants_of(model: ModelProto) -> list[str]:
    """Names of initializers and of Constant nodes' values."""
    graph = model.graph
    return [t.name for t in graph.initializer] + [n.output[0] for n in graph.node if constant(n) is not None]


def constant(node: NodeProto) -> TensorProto | None:
    """The value of a Constant node, None where it is another node or holds no dense tensor of numbers."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if "value" in held:
        found: TensorProto = held["value"]
        return found
    return next((numpy_helper.from_array(np.asarray(held[n], d)) for n, d in _NUMBERS.items() if n in held), None)


def is_large(tensor: TensorProto) -> bool:
    """Whether a constant is kept apart from the copy that is worked on."""
    return _size(tensor) > _SMALL or tensor.data_location == TensorProto.EXTERNAL


def _size(tensor: TensorProto) -> int:
    size = 1
    for d in tensor.dims:
        size *= d
    return size
