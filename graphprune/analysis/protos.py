"""What protos say, as plain data."""

from __future__ import annotations

from typing import Any

from onnx import AttributeProto, NodeProto, TypeProto, helper

from graphprune.relation import Shape


def declared(type_: TypeProto) -> tuple[int, Shape | None]:
    """Data type and shape of a tensor, as inference declares it; no shape where a dim is free."""
    tensor = type_.tensor_type
    if not type_.HasField("tensor_type") or not tensor.HasField("shape"):
        return tensor.elem_type, None
    if any(not d.HasField("dim_value") for d in tensor.shape.dim):
        return tensor.elem_type, None
    return tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim)


def decoded(node: NodeProto) -> dict[str, Any]:
    """Attribute values; graphs are left out."""
    return {
        a.name: helper.get_attribute_value(a)
        for a in node.attribute
        if a.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    }
