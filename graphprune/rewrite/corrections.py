"""Statistics stay what they were: a mean over k elements of what was a mean over n is multiplied by k/n, and so on.

What a relation asks for (see ``Correction``) goes into a constant where one is multiplied anyway, into an attribute
where one holds it. A factor on a result is carried on, as far as all that reads it is homogeneous, into constants
behind: of a root mean square in parts the epsilon is multiplied by n/k and the gain by sqrt(n/k), and the parts stay
those that runtimes know how to fuse. Only where that ends otherwise a ``Mul`` is put in.
"""

from __future__ import annotations

from math import prod

from onnx import helper

from graphprune.analysis.protos import decoded
from graphprune.model import Use
from graphprune.model.editor import Editor
from graphprune.relation import Correction, Slot
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.removal import Removal


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
            carried = {tensor: factor} if isinstance(tensor, Use) else None
            if isinstance(tensor, str) and correction.target[0] == "out":
                carried = _carried(removal, tensor, 1 / factor)
            if carried is None:
                _multiply(removal, editor, plan, index, correction.target, factor)
            for use, share in (carried or {}).items():
                scales[use] = scales.get(use, 1.0) * share
    return scales


def _carried(removal: Removal, name: str, excess: float) -> dict[Use, float] | None:
    """By which factors constants behind a tensor make up for its being ``excess`` times too large; None: by none.

    A gain (more than one element) is preferred to a single number, which a runtime may know by its value.
    """
    model, net = removal.analysis.model, removal.analysis.web
    found: dict[Use, float] = {}
    single: dict[Use, float] | None = None
    while True:
        readers = model.uses.get(name, [])
        if len(readers) != 1 or name in model.output_names or any(name in names for names in model.captured.values()):
            return single
        reader = readers[0]
        relation, node = net.relations[reader.node], model.nodes[reader.node]
        if relation is None or len(node.output) != 1:
            return single
        others = [Use(reader.node, k) for k, n in enumerate(node.input) if n and k != reader.input]
        constants = [u for u in others if u in net.axis_of]
        degree = relation.degrees.get(reader.input)
        name = node.output[0]
        if relation.joint and len(constants) == len(others):
            found = {**found, **dict.fromkeys(constants, excess)}
            continue
        if degree is None:
            return single
        excess = excess**degree
        gain = next((u for u in constants if relation.degrees.get(u.input)), None)
        if gain is not None:
            made_up = {**found, gain: excess ** (-1 / relation.degrees[gain.input])}
            if max(net.shapes[gain], default=1) > 1:
                return made_up
            single = single or made_up


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
        editor.rename(index, place, fresh)
        editor.append(helper.make_node("Mul", [fresh, number], [name]), index)
    plan.corrections.append({"tensor": name, "factor": factor})
