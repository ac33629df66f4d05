"""float32 in place of bfloat16, for which ONNX Runtime has next to no kernels on processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from graphprune.model.bodies import subgraphs

_TYPES = ("to", "dtype", "output_dtype", "softmax_precision", "stash_type")
"""Attributes that hold a type."""
_HALF, _SINGLE = TensorProto.BFLOAT16, TensorProto.FLOAT


def _is_half(graph: GraphProto) -> bool:
    """Whether a weight or an input of a graph, or of a body in it, is of bfloat16."""
    return any(
        any(t.data_type == _HALF for t in g.initializer) or any(v.type.tensor_type.elem_type == _HALF for v in g.input)
        for g in _graphs(graph)
    )


def single(tensor: TensorProto) -> None:
    """Make a tensor that holds its data one of float32."""
    value = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def widened(proto: ModelProto, tensor: Callable[[TensorProto], None] = single) -> ModelProto:
    """A model that computes in float32 what it computed in bfloat16; itself where there is none.

    Args:
        proto: the model.
        tensor: changes one tensor of the copy.
    """
    if not _is_half(proto.graph):
        return proto
    wide = ModelProto()
    wide.CopyFrom(proto)
    for graph in _graphs(wide.graph):
        for held in [*graph.initializer, *(a.t for n in graph.node for a in n.attribute if a.HasField("t"))]:
            if held.data_type == _HALF:
                tensor(held)
        for declared in (graph.input, graph.output, graph.value_info):
            for item in declared:
                if item.type.tensor_type.elem_type == _HALF:
                    item.type.tensor_type.elem_type = _SINGLE
        for attribute in (a for n in graph.node for a in n.attribute if a.name in _TYPES and a.i == _HALF):
            attribute.i = _SINGLE
    return wide


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)
