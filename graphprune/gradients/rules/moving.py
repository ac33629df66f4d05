"""Operators that move elements: their gradients move back."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import INT, Term


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(b: Back) -> Sequence[Gradient]:
    return [b.g0.shaped_as(b.x[0])]


@rule("Transpose")
def _transpose(b: Back) -> Sequence[Gradient]:
    order = b.attr("perm")
    if order is None:
        return [b.tape.op("Transpose", b.g0)]
    back = sorted(range(len(order)), key=lambda k: order[k])
    return [b.g0.transpose(back)]


@rule("Concat")
def _concat(b: Back) -> Sequence[Gradient]:
    axis = b.attr("axis")
    sizes = b.tape.join([x.size(axis) for x in b.x])
    kinds = [b.g0.kind] * len(b.x)
    return b.tape.ops("Split", b.g0, sizes, kinds=kinds, dims=[x.dims for x in b.x], axis=axis)


@rule("Split")
def _split(b: Back) -> Sequence[Gradient]:
    parts = [g if g is not None else y.zeros() for g, y in zip(b.g, b.y, strict=True)]
    return [b.tape.join(parts, b.attr("axis", 0))]


@rule("Expand")
def _expand(b: Back) -> Sequence[Gradient]:
    return [b.g0.sum_to(b.x[0])]


@rule("Slice", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Tile", "Compress")
def _by_index(b: Back) -> Sequence[Gradient]:
    return [by_index(b)]


def by_index(b: Back) -> Term:
    """The gradient of an operator that copies elements of its first input, whatever it does with them.

    The operator itself tells where each element comes from: it is run on the numbers of the elements. What was copied
    several times adds up.
    """
    x, tape = b.x[0], b.tape
    numbers = tape.op("Range", tape.constant(0), x.count(), tape.constant(1), kind=INT).reshape(x.shape())
    source = tape.op(b.node.op_type, numbers, *(t if t.name else None for t in b.raw[1:]), kind=INT, **b.attributes)
    sums = tape.op(
        "ScatterElements",
        b.x[0].zeros().reshape([-1]),
        source.reshape([-1]),
        b.g0.reshape([-1]),
        axis=0,
        reduction="add",
    )
    return Term(tape, sums.reshape(x.shape()).name, b.g0.kind, x.dims)
