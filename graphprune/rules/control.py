"""Rules of the nodes that stand for control flow in the flat form (see ``graphprune.model.control``).

What a body is given, what it returns and what the node returns are the same axes; the axis that a loop runs over stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphprune.relation import AxisMap, Builder, Relation, Shape
from graphprune.relation.zero import ALWAYS
from graphprune.rules.node import NodeView

DOMAIN = "graphprune.control"
"""Domain of the nodes that stand for control flow in the flat form."""
LOOPED = "a loop runs over it"
Side = list[list[AxisMap] | None]


def branches(node: NodeView) -> Relation:
    """If: each output is that of one branch or of the other; of one alone where the condition is always the same."""
    count, own = len(node.outputs), node.integer("inputs")
    condition = node.value(0)
    build = Builder()
    inputs: Side = [None] * len(node.inputs)
    outputs: Side = [None] * count
    zeros = []
    for k, shape in enumerate(node.outputs):
        places = [own + k, own + count + k]
        if condition is not None:
            never = places.pop(1 if bool(condition) else 0)
            given = node.inputs[never]
            inputs[never] = None if given is None else build.like(given)
        axes = _tied(build, shape, [node.inputs[p] for p in places], "its branches give it different shapes")
        for place, tied in zip(places, axes[1:], strict=True):
            inputs[place] = tied
        outputs[k] = axes[0]
        zeros.append("+".join(map(str, places)))
    return replace(build.relation(inputs, outputs, zero=";".join(zeros)), sums=ALWAYS)


def enter(node: NodeView) -> Relation:
    """What goes into a body; it may come from the step before as well, so nothing is said to be zero."""
    first = 2 if node.attributes["kind"] == b"Loop" else 0
    sliced = len(node.outputs) - first - int(node.attributes.get("num_scan_inputs", 0))
    build = Builder()
    inputs: Side = [None] * len(node.inputs)
    outputs: Side = [None] * len(node.outputs)
    for k, shape in enumerate(node.inputs):
        if shape is None:
            continue
        if k < sliced:
            inputs[k], outputs[first + k] = _tied(build, shape, [node.outputs[first + k]], "it changes its shape")
            continue
        inputs[k], outputs[first + k] = _scanned(node, build, k - sliced, shape)
    return build.relation(inputs, outputs, zero="")


def loop(node: NodeView) -> Relation:
    """Loop: the number of steps and the condition, what is carried, what is collected."""
    return _loop(node, first=2, body=1, sliced=0)


def scan(node: NodeView) -> Relation:
    """Scan: what is carried, what is collected."""
    return _loop(node, first=0, body=0, sliced=int(node.attributes["num_scan_inputs"]))


def _loop(node: NodeView, first: int, body: int, sliced: int) -> Relation:
    own = node.integer("inputs")
    carried = own - first - sliced
    made = own + body  # the body's outputs, behind its condition
    entered = own + body + len(node.outputs) + first  # its inputs, behind the step's number and the condition
    build = Builder()
    inputs: Side = [None] * len(node.inputs)
    outputs: Side = [None] * len(node.outputs)
    zeros = []
    for k, shape in enumerate(node.outputs):
        inner = made + k
        if k < carried:
            places = [first + k, inner, entered + k]
            others = [*(node.inputs[p] for p in places[1:]), *([] if shape is None else [shape])]
            axes = _tied(build, node.inputs[first + k], others, "it changes its shape")
            for place, given in zip(places, axes, strict=False):
                inputs[place] = given
            outputs[k] = None if shape is None else axes[-1]
            zeros.append(f"{first + k}+{inner}")
            continue
        given_shape = node.inputs[inner]
        zeros.append(str(inner))
        if given_shape is None:
            continue
        axis = _axis(node.attributes.get("scan_output_axes"), k - carried, len(given_shape) + 1)
        axes_inside = build.like(given_shape)
        inputs[inner] = axes_inside
        if shape is not None:
            outputs[k] = [*axes_inside[:axis], build.dim(shape[axis], pinned=LOOPED), *axes_inside[axis:]]
    for k in range(sliced):
        scanned = node.inputs[first + carried + k]
        if scanned is not None:
            own_axes, slices = _scanned(node, build, k, scanned)
            inputs[first + carried + k], inputs[entered + carried + k] = own_axes, slices
    return replace(build.relation(inputs, outputs, zero=";".join(zeros)), sums=ALWAYS)  # it sums over nothing


def _scanned(node: NodeView, build: Builder, which: int, shape: Shape) -> tuple[list[AxisMap], list[AxisMap]]:
    """The axes of what a Scan runs over, and of the slices that its body gets."""
    axis = _axis(node.attributes.get("scan_input_axes"), which, len(shape))
    axes = [build.dim(n, pinned=LOOPED if a == axis else None) for a, n in enumerate(shape)]
    return axes, [*axes[:axis], *axes[axis + 1 :]]


def _axis(axes: Sequence[int] | None, which: int, rank: int) -> int:
    return int(axes[which]) % rank if axes else 0


def _tied(build: Builder, shape: Shape | None, others: Sequence[Shape | None], why: str) -> list[list[AxisMap] | None]:
    """The same axes for tensors of the same shape; an axis of different sizes is pinned in each of them.

    So a branch that starts a cache and one that lengthens it differ along its length alone. Where a shape is not known,
    or ranks differ, all axes are pinned.
    """
    every = (shape, *others)
    known = [s for s in every if s is not None]
    if len(known) == len(every) and len({len(s) for s in known}) == 1:
        found: list[list[AxisMap]] = [[] for _ in known]
        for sizes in zip(*known, strict=True):
            same = len(set(sizes)) == 1
            axis = build.dim(sizes[0], pinned=None if same else why)
            for own, size in zip(found, sizes, strict=True):
                own.append(axis if size == sizes[0] else build.dim(size, pinned=why))
        return list(found)
    return [None if s is None else [build.dim(n, pinned=why) for n in s] for s in every]
