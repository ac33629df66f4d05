"""What a model leaves to chance: operators that draw at random, and what training leaves switched on."""

from __future__ import annotations

from functools import cache

import onnx
from onnx import NodeProto, helper

from graphprune.analysis.reasons import Reason
from graphprune.model import Model, node_name
from graphprune.rules.floating import RANDOM

REMEDY = "export it in evaluation mode ('model.eval()' before the export, or training=TrainingMode.EVAL)"
"""What to do about a model in training mode."""


@cache
def _switch(domain: str, op: str) -> int | None:
    """The input that switches training on, -1 where an attribute does, None where nothing does."""
    if not onnx.defs.has(op, domain):
        return None
    schema = onnx.defs.get_schema(op, domain=domain)
    place = next((i for i, one in enumerate(schema.inputs) if one.name == "training_mode"), None)
    return -1 if place is None and "training_mode" in schema.attributes else place


def _domain(node: NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def training(model: Model, index: int) -> bool:
    """Whether a node is in training mode, or is where an input of the model says so."""
    node = model.nodes[index]
    place = _switch(_domain(node), node.op_type)
    if place is None:
        return False
    if place < 0:
        return any(a.name == "training_mode" and bool(helper.get_attribute_value(a)) for a in node.attribute)
    root = model.root(node.input[place]) if len(node.input) > place and node.input[place] else ""
    return bool(root) and (root not in model.sources or bool(model.array(root).any()))


def drawn(model: Model) -> list[int]:
    """Nodes whose results differ from one run to the next."""
    found = []
    for index, node in enumerate(model.nodes):
        if (_domain(node), node.op_type) in RANDOM:
            switch = _switch(_domain(node), node.op_type)
            if switch is None or training(model, index):
                found.append(index)
    return found


def notes(model: Model) -> list[Reason]:
    """What the user should know: the first node of each kind, and what about it and its like."""
    on = [i for i in range(len(model.nodes)) if training(model, i)]
    random = [i for i in drawn(model) if i not in set(on)]
    found = []
    for op in dict.fromkeys(model.nodes[i].op_type for i in on):
        names = [node_name(model, i) for i in on if model.nodes[i].op_type == op]
        does = "changes its outputs from run to run" if ("", op) in RANDOM else "uses the statistics of each batch"
        found.append(Reason(f"{op} is in training mode and {does}{_more(names)}", names[0], REMEDY))
    for op in dict.fromkeys(model.nodes[i].op_type for i in random):
        names = [node_name(model, i) for i in random if model.nodes[i].op_type == op]
        text = f"{op} draws at random, so that outputs differ from run to run{_more(names)}"
        found.append(Reason(text, names[0]))
    return found


def _more(names: list[str]) -> str:
    return f" (so do {len(names) - 1} more nodes)" if len(names) > 2 else " (so does one more)" if names[1:] else ""
