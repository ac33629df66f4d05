"""Colours of nodes: two nodes have the same where they look the same, by what they do and what is around them.

Colours are numbers given out in order of appearance, to both models from one box, so that they are exact: nothing
collides. Three kinds:

- ``kind``: operator and place (main graph, which body, which function).
- ``own``: kind and attributes. An attribute that is left out is what the operator's schema says that it is then.
- ``whole``: own, and the whole of what leads to the node, weights by their bytes (a Merkle tree). Two nodes with the
  same compute the same.
- ``near``: own, and what is up to a few steps away, without weights (colour refinement as of Weisfeiler and Leman).
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache, cached_property

import onnx
from onnx import AttributeProto, NodeProto, helper

from graphprune.verdict.diff.flat import NOTHING, Flat

STEPS = 4
"""How far colours of what is near see."""
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


class Box:
    """Gives out colours: a number for each thing that it has not seen before."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def colour(self, thing: Hashable) -> int:
        """The colour of a thing."""
        return self._known.setdefault(thing, len(self._known))


class Colours:
    """Colours of one model, each list with one for each node.

    Args:
        flat: the model.
        box: of both models.
    """

    def __init__(self, flat: Flat, box: Box) -> None:
        self.flat, self.box = flat, box
        self.kind = [box.colour(("kind", node.op, node.kind)) for node in flat.nodes]
        opsets = flat.model.opsets
        self.own = [
            box.colour(("own", kind, tuple(sorted(attributes(node.proto, opsets.get(node.op[0], 1)).items()))))
            for kind, node in zip(self.kind, flat.nodes, strict=True)
        ]

    def whole(self) -> list[int]:
        """Colours of all that leads to a node; reads every constant."""
        flat, box = self.flat, self.box
        tensors = [NOTHING] * len(flat.names)
        for place, tensor in enumerate(flat.inputs):
            tensors[tensor] = box.colour(("input", place))
        for name, (taken, _) in flat.functions.items():
            for place, tensor in enumerate(taken):
                tensors[tensor] = box.colour((name, place))
        for tensor, constant in flat.constants.items():
            tensors[tensor] = box.colour(constant.digest)
        for index, node in enumerate(flat.nodes):  # what bodies take: by their holder and place
            for slot in range(len(node.proto.output), len(node.makes)):
                tensors[node.makes[slot]] = box.colour(("body", self.own[index], slot))
        found = []
        for own, node in zip(self.own, flat.nodes, strict=True):
            read = tuple(t if t == NOTHING else tensors[t] for t in node.reads)
            found.append(box.colour(("whole", own, read)))
            for slot, tensor in enumerate(node.makes[: len(node.proto.output)]):
                if tensor != NOTHING:
                    tensors[tensor] = box.colour((found[-1], slot))
        return found

    @cached_property
    def near(self) -> list[int]:
        """Colours of what is around a node, up to ``STEPS`` steps away."""
        flat, colour = self.flat, self.box.colour
        ends = dict.fromkeys(flat.inputs, ("input",)) | dict.fromkeys(flat.outputs, ("output",))
        found = self.own
        for _ in range(STEPS):
            behind = [
                tuple(
                    ("constant", len(flat.constants[t].shape))
                    if t in flat.constants
                    else (found[flat.maker[t][0]], flat.maker[t][1])
                    if t != NOTHING and flat.maker[t][0] != NOTHING
                    else ends.get(t)
                    for t in node.reads
                )
                for node in flat.nodes
            ]
            ahead = [
                tuple(
                    (tuple(sorted((found[reader], slot) for reader, slot in flat.readers[t][:_MANY])), ends.get(t))
                    for t in node.makes
                    if t != NOTHING
                )
                for node in flat.nodes
            ]
            found = [colour(("near", *three)) for three in zip(found, behind, ahead, strict=True)]
        return found


_MANY = 64
"""Readers of a tensor beyond these tell its node from no other."""


def attributes(node: NodeProto, opset: int) -> dict[str, bytes]:
    """What a node's attributes are, as bytes by name: those that are left out too, where the schema says what they are.

    Args:
        node: the node; graphs in it do not count.
        opset: version of the operator set of its domain.
    """
    found = dict(_defaults(node.op_type, node.domain, opset))
    for attribute in node.attribute:
        if attribute.type not in _GRAPHS:
            found[attribute.name] = _bytes(attribute)
    return found


def _bytes(attribute: AttributeProto) -> bytes:
    if attribute.HasField("doc_string") or (attribute.type == AttributeProto.TENSOR and attribute.t.HasField("name")):
        bare = AttributeProto()
        bare.CopyFrom(attribute)
        bare.ClearField("doc_string")
        bare.t.ClearField("name")
        attribute = bare
    return attribute.SerializeToString(deterministic=True)


@cache
def _defaults(op: str, domain: str, opset: int) -> dict[str, bytes]:
    try:
        schema = onnx.defs.get_schema(op, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return {}
    return {
        name: own.default_value.SerializeToString(deterministic=True)
        for name, own in schema.attributes.items()
        if own.default_value.type != AttributeProto.UNDEFINED
    }


def shown(data: bytes | None) -> object:
    """An attribute as JSON has it: its value; of tensors and the like what they are."""
    if data is None:
        return None
    attribute = AttributeProto.FromString(data)
    if attribute.ref_attr_name:
        return f"@{attribute.ref_attr_name}"
    if attribute.type == AttributeProto.TENSOR:
        return f"tensor of {tuple(attribute.t.dims)}"
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) or hasattr(value, "__len__"):
        return [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value if _plain(v)]
    return AttributeProto.AttributeType.Name(attribute.type).lower()


def _plain(value: object) -> bool:
    return isinstance(value, bytes | int | float | str)
