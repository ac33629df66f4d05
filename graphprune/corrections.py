"""Statistics stay what they were: a mean over k elements of what was a mean over n is multiplied by k/n, and so on.

What a relation asks for (see ``Correction``) goes into a constant where one is multiplied anyway, into an attribute
where one holds it, and into a ``Mul`` of its own elsewhere.
"""

from __future__ import annotations

from math import prod

from onnx import helper

from graphprune.editor import Editor
from graphprune.model import Use
from graphprune.plan import Plan
from graphprune.relation import Correction, Slot
from graphprune.removal import Removal
from graphprune.shapes import decoded


def apply(removal: Removal, editor: Editor, plan: Plan) -> dict[Use, float]:
    """Correct every statistic over dims that shrink.

    Returns:
        By which factor uses of constants must be multiplied when they are cut.
    """
    net = removal.analysis.web
    scales: dict[Use, float] = {}
    for index, relation in enumerate(net.relations):
        for correction in relation.corrections if relation is not None else ():
            factor = _factor(removal, index, correction)
            if factor == 1.0:
                continue
            if isinstance(correction.target, str):
                _attribute(editor, index, correction, factor)
                continue
            tensor = net.tensors[(index, correction.target)]
            if isinstance(tensor, Use):
                scales[tensor] = factor
            else:
                _multiply(removal, editor, plan, index, correction.target, factor)
    return scales


def _factor(removal: Removal, index: int, correction: Correction) -> float:
    net = removal.analysis.web
    vertices = [net.dim_start[index] + d for d in correction.dims]
    before, after = prod(net.sizes[v] for v in vertices), prod(removal.size(v) for v in vertices)
    return float((after / before) ** correction.power)


def _attribute(editor: Editor, index: int, correction: Correction, factor: float) -> None:
    name = str(correction.target)
    before = float(decoded(editor.model.nodes[index]).get(name, correction.default))
    editor.set_attribute(index, name, before * factor)


def _multiply(removal: Removal, editor: Editor, plan: Plan, index: int, target: Slot, factor: float) -> None:
    """Put a ``Mul`` on an input or an output of a node."""
    side, place = target
    node = editor.nodes[index]
    inward = side == "in"
    name = node.input[place] if inward else node.output[place]
    kind = removal.analysis.witness.first.types[removal.analysis.model.nodes[index].input[0]]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    number = editor.constant(name, dtype.type(factor), index)
    fresh = editor.name(name)
    if inward:
        editor.insert(helper.make_node("Mul", [name, number], [fresh]), index)
        editor.redirect(index, place, fresh)
    else:
        node.output[place] = fresh
        editor.append(helper.make_node("Mul", [fresh, number], [name]), index)
    plan.corrections.append({"tensor": name, "factor": factor})
