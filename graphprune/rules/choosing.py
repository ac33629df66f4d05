"""Rules of operators that choose along an axis, and of those that move on what was chosen.

A softmax gives nothing to an element at which -inf stands, and a top-k does not pick it: along such an axis elements
can go, and the masked model reads -inf in their place. What a top-k picked is told by positions. They may be moved
about, looked up by and placed by; who computes with them in another way pins the axis.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from graphprune.relation import AxisMap, Builder, Choice, Dim, Kept, Operand, Relation, Slot, Values
from graphprune.rules.computing import EVERY, elementwise
from graphprune.rules.node import OUT0, NodeView, Unruled

EXPERT = "expert"
"""What elements are called that are picked by position: each has weights of its own."""
AS_THEY_ARE = frozenset((
    "Cast", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Reshape", "Shape", "Size", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
))  # fmt: skip
"""Operators whose outputs hold values of input 0 and no others, or sizes of it."""


def softmax(node: NodeView) -> Relation:
    """Shares out along one axis (before opset 13 over all from the given one on): what gets nothing may go."""
    shape = node.shape(0)
    axis = node.axis(-1 if node.opset >= 13 else 1)
    build = Builder()
    if node.opset < 13 and any(size > 1 for size in shape[axis + 1 :]):
        axes = [build.dim(s, pinned=EVERY if a >= axis else None) for a, s in enumerate(shape)]
    else:
        axes = _along(node, axis, build, Choice())
    found = build.relation([axes], [axes], zero="")
    return replace(found, level=tuple(d for d, dim in enumerate(found.dims) if dim.pinned or dim.choice))


def top_k(node: NodeView) -> Relation:
    """Picks as many along its axis; what is never picked may go. Output 1 holds positions."""
    axis = node.axis(-1)
    picked = next((out[axis] for out in node.outputs if out is not None), None)
    if picked is None:
        raise Unruled("none of its outputs is used")
    build = Builder()
    axes = _along(node, axis, build, Choice(inf if node.attributes.get("largest") == 0 else -inf, picked, EXPERT))
    kept = [*axes[:axis], build.dim(picked, pinned="as many are picked at once"), *axes[axis + 1 :]]
    relation = build.relation([axes, *_others(node)], [None if out is None else kept for out in node.outputs], zero="")
    used = len(node.outputs) > 1 and node.outputs[1] is not None
    return _counting(relation, axes[axis], 1) if used else relation


def extreme(node: NodeView) -> Relation:
    """Picks one along its axis; what is never picked may go. Its output holds positions."""
    axis = node.axis(0)
    build = Builder()
    axes = _along(node, axis, build, Choice(-inf if node.op == "ArgMax" else inf, 1, EXPERT))
    middle = [AxisMap(())] if node.attributes.get("keepdims", 1) else []
    relation = build.relation([axes, *_others(node)], [[*axes[:axis], *middle, *axes[axis + 1 :]]], zero="")
    return _counting(relation, axes[axis], 0)


def _along(node: NodeView, axis: int, build: Builder, choice: Choice) -> list[AxisMap]:
    axes = build.like(node.shape(0))
    for d in axes[axis].dims:
        build.dims[d] = replace(build.dims[d], choice=choice)
    return axes


def _others(node: NodeView) -> list[None]:
    return [None] * (len(node.inputs) - 1)


def _counting(relation: Relation, axis: AxisMap, output: int) -> Relation:
    return replace(relation, counts={("out", output): axis.dims[0]}) if axis.dims else relation


def moved_on(node: NodeView, relation: Relation) -> Relation:
    """What a node says that reads positions at input 0 and holds them, elsewhere, on its outputs."""
    known = node.domain == "" and node.op in AS_THEY_ARE and not relation.counts
    if not known or not node.counted or not node.counted[0]:
        return relation
    dim = len(relation.dims)
    counts: dict[Slot, int] = {("in", 0): dim}
    if node.op not in ("Shape", "Size"):
        counts |= {("out", k): dim for k, out in enumerate(node.outputs) if out is not None}
    return replace(relation, dims=(*relation.dims, Dim("@", node.counted[0])), counts=counts)


def equal(node: NodeView) -> Relation:
    """Elementwise; positions held against one number each along a new axis are told apart as by one-hot vectors."""
    for mine, other in ((0, 1), (1, 0)):
        numbers = node.value(other)
        if len(node.counted) == 2 and node.counted[mine] > 1 and numbers is not None:
            found = _one_by_one(node, mine, other, numbers)
            if found is not None:
                return found
    return elementwise()(node)


def _one_by_one(node: NodeView, mine: int, other: int, numbers: Values) -> Relation | None:
    """Equal of positions and numbers that vary along one axis, along which the positions do not."""
    target, size = node.out(), node.counted[mine]
    shape = (1,) * (len(target) - len(node.shape(mine))) + node.shape(mine)
    spread = (1,) * (len(target) - numbers.ndim) + numbers.shape
    along = [a for a, n in enumerate(spread) if n > 1]
    if len(along) != 1 or shape[along[0]] != 1 or numbers.min() < 0 or len(np.unique(numbers)) < numbers.size:
        return None
    axis = along[0]
    build = Builder()
    axes = [AxisMap(()) if a == axis else build.dim(n) for a, n in enumerate(target)]
    named, flat = build.dim(size), numbers.reshape(-1)
    sides: list[list[AxisMap] | None] = [None, None]
    sides[mine] = axes[len(axes) - len(node.shape(mine)) :]
    out = [*axes[:axis], AxisMap(named.dims, np.where(flat < size, flat, -1)), *axes[axis + 1 :]]

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if value is None:
            return None
        stay = kept(("dim", named.dims[0]), 0)
        left = flat[kept(OUT0, axis)]
        place = np.where(left < size, np.searchsorted(stay, left), len(stay) + left - size)  # the last stand for none
        return place.astype(value.dtype).reshape([-1 if n > 1 else 1 for n in numbers.shape])

    relation = build.relation(sides, [out], zero="", operands=(Operand(other, refit),))
    return replace(relation, counts={("in", mine): named.dims[0]})
