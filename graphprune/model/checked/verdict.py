"""ONNX's checker with full inference, and ONNX Runtime where the checker complains.

The checker asks for more than is needed to run a model: exporters declare shapes that do not fit, leave out types of
outputs, give one initializer twice. So a complaint is a question, and ONNX Runtime answers it by loading the model.
Where it cannot answer, as of operators that it does not have, the model is taken as it is.

Both are given the model without its weights, which become inputs: what they look at is in nodes, types and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from graphprune.errors import InputError
from graphprune.model.checked import tensors
from graphprune.model.checked.asking import refusal
from graphprune.model.messages import copy_all_but
from graphprune.model.widening import widened

_SMALL = 1024
"""Bytes of a constant that stays: shapes, axes and repeats are read by inference."""
_WHOLE = 1 << 26
"""Bytes of weights up to which ONNX Runtime is also asked about the whole model: some kernels want constant weights."""
_LONGEST = 200
"""Characters of what ONNX Runtime says."""
_PLAIN = (
    (r"No Op registered for (\S+) with domain_version of (-?\d+)", r"no such operator in ONNX's set \2"),
    (r"Op registered for (\S+) is deprecated in domain_version of (\d+)", r"ONNX's set \2 has this operator no more"),
    (r"No opset import for domain '(.*?)'", r"its domain '\1' is not among the model's opset imports"),
    (
        r"Node.*has (in|out)put size (\d+) not in range \[min=(\d+), max=(\d+)\]",
        r"it has \2 \1puts, of \3 to \4",
    ),
    (r"(?:\[\w+\] )?Inference error\(s\): ", ""),
    (r"\((?:op_type:\w+)?(?:, node name: [^()]*)?\):? ?", ""),
    (r"\[\w*InferenceError\] ", ""),
)
"""What the checker says, and how it is told."""


def see(proto: ModelProto, nodes: Iterable[NodeProto], name: str) -> None:
    """See that a model whose structure is right is one to the checker, or at least to ONNX Runtime.

    Args:
        proto: the model; what it stores sparse is dense already.
        nodes: of its main graph, each behind those that it reads: their order in the file is no fault.
        name: what to call it.

    Raises:
        InputError: it is one to neither.
    """
    bare = _bare(proto, nodes)
    complaint = _checker(bare)
    if not complaint or not (reason := refusal(widened(bare))):
        return
    if not _small(proto) or (reason := refusal(widened(proto))):
        fault = told(complaint, {node.name: node.op_type for node in bare.graph.node})
        too = "" if fault.startswith("node ") else f" ({reason[:_LONGEST]})"  # what names no place may be another fault
        raise InputError(f"{name}: {fault}; ONNX Runtime refuses it too{too}: export the model again")


def _checker(bare: ModelProto) -> str:
    try:
        onnx.checker.check_model(bare, full_check=True)
    except Exception as error:  # checker and shape inference raise errors of several kinds
        return str(error) or type(error).__name__
    return ""


def _small(proto: ModelProto) -> bool:
    held = proto.graph.initializer
    return all(t.data_location != TensorProto.EXTERNAL for t in held) and sum(map(tensors.size, held)) <= _WHOLE


def _bare(proto: ModelProto, nodes: Iterable[NodeProto]) -> ModelProto:
    """A model whose large constants are inputs, whose nodes are in order and have names."""
    bare = ModelProto()
    copy_all_but(proto, bare, {"graph", "metadata_props"})
    graph = bare.graph
    copy_all_but(proto.graph, graph, {"node", "initializer", "value_info"})
    there = {value.name for value in graph.input}
    for tensor in proto.graph.initializer:
        if _stays(tensor):
            graph.initializer.append(tensor)
        elif tensor.name not in there:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            there.add(tensor.name)
    for node in nodes:
        large = node.op_type == "Constant" and next((a.t for a in node.attribute if a.HasField("t")), None)
        if large and not _stays(large):
            graph.input.append(helper.make_tensor_value_info(node.output[0], large.data_type, large.dims))
            continue
        graph.node.append(node)
        if not node.name:
            graph.node[-1].name = next((o for o in node.output if o), "")
    return bare


def _stays(tensor: TensorProto) -> bool:
    return tensor.data_location != TensorProto.EXTERNAL and tensors.size(tensor) <= _SMALL


def told(complaint: str, operators: Mapping[str, str]) -> str:
    """What the checker says in one line, behind the node that it says it of.

    Args:
        complaint: what it says.
        operators: of the nodes, by name.
    """
    found = re.search(r"(?:Name|node name): ?(?!OpType)([^\s,)]+)", complaint)
    line = next((line.strip() for line in complaint.splitlines() if line.strip()), "no reason given")
    for pattern, words in _PLAIN:
        line = re.sub(pattern, words, line)
    kind = f" ({operators[found[1]]})" if found and found[1] in operators else ""
    return (f"node {found[1]!r}{kind}: " if found else "") + line.strip().rstrip(".")
