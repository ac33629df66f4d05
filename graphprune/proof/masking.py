"""The masked original: what a plan removes is set to zero, by the plan alone.

So a wrong rewrite cannot hide in a wrong analysis. In front of a choice (a softmax, a top-k) it is set to what is never
chosen: -inf where the largest are. Zero is what the operator that reads a constant takes for zero: of quantised numbers
the zero point, which may be held by another operator behind it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from graphprune.analysis.origins import spread
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.proof import fill
from graphprune.relation import Values
from graphprune.rewrite.plan import Plan, Slice
from graphprune.rewrite.removal import Removal


def mask(model: Model, plan: Plan, removal: Removal | None = None, filled: bool = False) -> Model:
    """The original with every removed slice of the plan set to zero.

    Args:
        model: the original.
        plan: what was removed.
        removal: the same by axis: says where zero is not written as 0 (a quantised weight has a zero point).
        filled: also let every statistic of the plan's statistical groups see in place of removed elements what leaves
            it as it will be without them (see ``graphprune.proof.fill``).
    """
    editor = Editor(model)
    consumers = {o: i for i, n in enumerate(model.nodes) for o in n.output if o}
    made: dict[tuple[str, str, bytes], str] = {}
    for entry in plan.slices:
        node = consumers[entry.consumer]
        neutral = 0 if removal is None else _neutral(removal, node, entry.input)
        if neutral is None or not entry.removed:
            continue
        key = (entry.source, repr(sorted(entry.removed.items())), np.asarray(neutral).tobytes())
        if key not in made:
            value = partial(_masked, model, entry, neutral)
            later = editor.outside(entry.source) and model.proto.ir_version >= 4
            made[key] = editor.later(entry.source, value) if later else editor.constant(entry.source, value(), 0)
        editor.redirect(node, entry.input, made[key])
    if removal is not None:
        fill.never_chosen(editor, removal, [g.id for g in plan.groups if g.removed])
    if filled and removal is not None:
        fill.apply(editor, removal, [g.id for g in plan.groups if g.statistical and g.removed])
    return editor.finish()


def _masked(model: Model, entry: Slice, neutral: Any) -> Values:
    """A constant with what is removed set to what stands for zero."""
    value = np.array(model.array(entry.source))
    if value.dtype.kind in "OUS":
        neutral = ""  # of text
    for axis, gone in entry.removed.items():
        place = (slice(None),) * int(axis) + (gone,)
        value[place] = neutral if np.ndim(neutral) == 0 else np.broadcast_to(neutral, value.shape)[place]
    return value


def _neutral(removal: Removal, node: int, position: int) -> Any:
    """What stands for zero in a constant: 0, its zero point (of a shape that broadcasts to it), or None: leave it."""
    net, model = removal.analysis.web, removal.analysis.model
    relation = net.relations[node]
    if relation is None:
        return 0
    if position not in relation.masks:
        moved = relation.zero.follows(position) and not relation.rounds
        return _zero_point(removal, model.nodes[node].output[0]) if moved else 0
    holder = relation.masks[position]
    if holder is None:
        return None
    value = _held(model, node, holder)
    if value is None or value.size == 1:
        return 0 if value is None else value.reshape(())
    return spread(value, relation, position, holder)


def _zero_point(removal: Removal, name: str) -> Any:
    """The zero point of quantised numbers that are moved (looked up, turned) before anything is computed of them."""
    for use in removal.analysis.model.uses.get(name, []):
        relation = removal.analysis.web.relations[use.node]
        if relation is None:
            continue
        if relation.masks.get(use.input) is not None:
            value = _held(removal.analysis.model, use.node, relation.masks[use.input] or 0)
            return value.reshape(()) if value is not None and value.size == 1 else 0
        if relation.zero.follows(use.input) and not relation.rounds:
            return _zero_point(removal, removal.analysis.model.nodes[use.node].output[0])
    return 0


def _held(model: Model, node: int, position: int) -> Values | None:
    """The value of a constant input, None where it is absent or computed."""
    inputs = model.nodes[node].input
    root = model.root(inputs[position]) if position < len(inputs) and inputs[position] else ""
    return model.array(root) if root in model.sources else None
