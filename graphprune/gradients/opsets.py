"""Nodes as opset 18 writes them, so that rules see one form of each operator.

A function is a change between two versions of an operator: an attribute that became an input, a default that changed.
Models of opset 18 and above are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

from graphprune.gradients.errors import GradientError
from graphprune.gradients.known import Known, infer
from graphprune.gradients.terms import INT, Tape
from graphprune.model.bodies import subgraphs

_TARGET = 18
_OLDEST = 7

Change = Callable[[NodeProto, Tape, Known], None]
"""Changes a node in place; nodes that it needs besides are written on the tape in front of it."""


def upgrade(model: ModelProto) -> ModelProto:
    """A model of opset 18 or above that computes the same; the model itself where it is one already.

    Raises:
        GradientError: its opset is below 7, where broadcasting was another.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _TARGET)
    if opset >= _TARGET:
        return model
    if opset < _OLDEST:
        raise GradientError(f"the model is of opset {opset}; gradients need {_OLDEST} or above")
    known = infer(model)
    proto = ModelProto()
    proto.CopyFrom(model)
    for imported in proto.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = _TARGET
    tape = Tape.beside(model.graph)
    _upgrade(proto.graph.node, tape, known, opset)
    proto.graph.initializer.extend(tape.constants.values())
    return proto


def _upgrade(nodes: MutableSequence[NodeProto], tape: Tape, known: Known, opset: int) -> None:
    written: list[NodeProto] = []
    for node in nodes:
        for graph in subgraphs(node):
            _upgrade(graph.node, tape, known, opset)
        before, change = CHANGES.get(node.op_type if node.domain in ("", "ai.onnx") else "", (0, None))
        if change is not None and opset < before:
            change(node, tape, known)
            written.extend(tape.nodes)
            tape.nodes.clear()
        written.append(node)
    copies = [NodeProto() for _ in written]
    for copy, node in zip(copies, written, strict=True):
        copy.CopyFrom(node)
    del nodes[:]
    nodes.extend(copies)


def _held(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _drop(node: NodeProto, *names: str) -> None:
    kept = [a for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def _inputs(*names: str, own: bool = False) -> Change:
    """Attributes that became inputs behind the first, in this order; ``own``: in the type of the first."""

    def change(node: NodeProto, tape: Tape, known: Known) -> None:
        held = _held(node)
        for place, name in enumerate(names, 1):
            if name in held:
                node.input.extend([""] * (place - len(node.input)))
                kind = known.kinds.get(node.input[0], TensorProto.FLOAT) if own else INT
                node.input.append(tape.constant(held[name], kind).name)
        _drop(node, *names)

    return change


def _pad(node: NodeProto, tape: Tape, known: Known) -> None:
    held = _held(node)
    kind = known.kinds.get(node.input[0], TensorProto.FLOAT)
    node.input.extend([tape.constant(held["pads"]).name, tape.constant(held.get("value", 0.0), kind).name])
    _drop(node, "pads", "value")


def _topk(node: NodeProto, tape: Tape, known: Known) -> None:
    node.input.append(tape.constant([_held(node)["k"]]).name)
    _drop(node, "k")


def _slice(node: NodeProto, tape: Tape, known: Known) -> None:
    held = _held(node)
    axes = held.get("axes", range(len(held["starts"])))
    node.input.extend(tape.constant(list(v)).name for v in (held["starts"], held["ends"], axes))
    _drop(node, "starts", "ends", "axes")


def _split(node: NodeProto, tape: Tape, known: Known) -> None:
    _inputs("split")(node, tape, known)
    if len(node.input) == 1:
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))


def _dropout(node: NodeProto, tape: Tape, known: Known) -> None:
    _drop(node, "ratio")


def _batch_normalization(node: NodeProto, tape: Tape, known: Known) -> None:
    _drop(node, "spatial")
    del node.output[1:]


def _scatter(node: NodeProto, tape: Tape, known: Known) -> None:
    node.op_type = "ScatterElements"


def _resize(node: NodeProto, tape: Tape, known: Known) -> None:
    """What is nearest was not said; ONNX Runtime takes the element behind where an axis gets shorter, else in front."""
    own = len(node.input) == 1
    scales = tape.constant(_held(node)["scales"], TensorProto.FLOAT).name if own else node.input[1]
    value = known.value(scales)
    shorter = value is not None and bool((value < 1).any())
    if shorter and value is not None and (value > 1).any() and _held(node).get("mode", b"nearest") == b"nearest":
        raise GradientError(
            f"{node.op_type} node {node.name or node.output[0]!r} makes some axes longer and others shorter, by the "
            "nearest elements as operator set 10 has it, which later ones do not have: export the model at 11 or above"
        )
    node.op_type = "Resize"
    node.input[:] = [node.input[0], "", scales]
    _drop(node, "scales")
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    node.attribute.append(helper.make_attribute("nearest_mode", "ceil" if shorter else "floor"))


def _flattened(node: NodeProto, tape: Tape, known: Known) -> None:
    """Softmax over all axes from one on, as it was before opset 13: over the last axis of a matrix."""
    axis = _held(node).get("axis", 1)
    dims = known.dims.get(node.input[0])
    _drop(node, "axis")
    node.attribute.append(helper.make_attribute("axis", -1))
    if dims is not None and axis % max(len(dims), 1) == len(dims) - 1:
        return
    inner = NodeProto()
    inner.CopyFrom(node)
    source, result = node.input[0], node.output[0]
    inner.input[0], inner.output[0] = tape.fresh(f"{source}_flat"), tape.fresh(f"{result}_flat")
    inner.name = tape.fresh(f"{node.name}_flat")
    shape = tape.fresh(f"{source}_shape")
    tape.nodes.append(helper.make_node("Flatten", [source], [inner.input[0]], axis=axis))
    tape.nodes.append(inner)
    tape.nodes.append(helper.make_node("Shape", [source], [shape]))
    node.CopyFrom(helper.make_node("Reshape", [inner.output[0], shape], [result], node.name))


def _scan(node: NodeProto, tape: Tape, known: Known) -> None:
    raise GradientError(
        f"Scan node {node.name!r} is of opset 8, over batches of sequences, which no gradient is taken of"
    )


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod SumSquare"

CHANGES: dict[str, tuple[int, Change]] = {
    "BatchNormalization": (14, _batch_normalization),
    "Clip": (11, _inputs("min", "max", own=True)),
    "Dropout": (12, _dropout),
    "Hardmax": (13, _flattened),
    "LogSoftmax": (13, _flattened),
    "Pad": (11, _pad),
    "ReduceSum": (13, _inputs("axes")),
    "Resize": (11, _resize),
    "Scan": (9, _scan),
    "Scatter": (11, _scatter),
    "Slice": (10, _slice),
    "Softmax": (13, _flattened),
    "Split": (18, _split),
    "Squeeze": (13, _inputs("axes")),
    "TopK": (10, _topk),
    "Unsqueeze": (13, _inputs("axes")),
    "Upsample": (10, _resize),
    **{f"Reduce{name}": (18, _inputs("axes")) for name in _REDUCTIONS.split()},
}
"""By operator: the opset that changed it, and what to do with nodes older than that."""
