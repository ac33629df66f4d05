"""Nodes of a proto: do their attributes hold what they say."""

from __future__ import annotations

from onnx import AttributeProto, NodeProto

from graphprune.errors import InputError
from graphprune.model.checked import tensors, text
from graphprune.model.checked.outside import Outside

_FIELD = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
_WHOLE = frozenset(("t", "g", "sparse_tensor", "tp"))
"""Fields that hold a message, which has no default."""
_KNOWN = frozenset(("name", "type", "doc_string", "ref_attr_name"))


def see(node: NodeProto, called: str, outside: Outside, formal: frozenset[str] | None) -> None:
    """See that a node has outputs, and attributes that hold what they say.

    Args:
        node: it.
        called: the model, and what to call the node.
        outside: files beside the model.
        formal: attributes of the function that it is in; None of a node in none.

    Raises:
        InputError: it has not.
    """
    text.see((node.name, node.op_type, node.domain, node.overload), called)
    if not node.op_type:
        raise InputError(f"{called} names no operator; export the model again")
    if not node.output:
        raise InputError(f"{called} has no output, so that nothing can read it; take it out of the model")
    names: set[str] = set()
    for attribute in node.attribute:
        if attribute.name in names or not attribute.name:
            told = f"the attribute {attribute.name!r} twice" if attribute.name else "an attribute without a name"
            raise InputError(f"{called} has {told}; keep one of each name")
        names.add(attribute.name)
        _attribute(attribute, called, outside, formal)


def _attribute(one: AttributeProto, called: str, outside: Outside, formal: frozenset[str] | None) -> None:
    mine = f"{called}: its attribute {one.name!r}"
    text.see((one.name, one.ref_attr_name), called)
    if one.ref_attr_name:
        if formal is None:
            raise InputError(f"{mine} refers to {one.ref_attr_name!r}, and stands in no function; give it a value")
        return
    held = _FIELD.get(one.type)
    if held is None:
        raise InputError(f"{mine} does not say of which type it is; write its type")
    if held in _WHOLE and not one.HasField(held):
        raise InputError(f"{mine} is said to be of type {_type(one)} and holds none; give it one, or take it out")
    for field, _ in one.ListFields():
        if field.name != held and field.name not in _KNOWN:
            raise InputError(f"{mine} is said to be of type {_type(one)} and holds {field.name!r}; write its type")
    _tensors(one, mine, outside)


def _tensors(one: AttributeProto, mine: str, outside: Outside) -> None:
    if one.type in (AttributeProto.TENSOR, AttributeProto.TENSORS):
        for tensor in [one.t] if one.type == AttributeProto.TENSOR else one.tensors:
            tensors.see(tensor, mine, outside)
    elif one.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
        for sparse in [one.sparse_tensor] if one.type == AttributeProto.SPARSE_TENSOR else one.sparse_tensors:
            tensors.see_sparse(sparse, mine, outside)


def _type(one: AttributeProto) -> str:
    return AttributeProto.AttributeType.Name(one.type)
