"""Rules of operators that look elements up, place them, or treat some of their axes as a whole: the others pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from graphprune.relation import AxisMap, Builder, Kept, Operand, Relation, Shape, Values
from graphprune.relation.binding import bind
from graphprune.relation.notation import Line
from graphprune.rules.node import OUT0, NodeView, Rule, Unruled, described

LOOKED_UP = "its elements are looked up or placed by indices that the model computes"


def passing(shape: Shape, held: Iterable[int], build: Builder, reason: str) -> list[AxisMap]:
    """Axes of a tensor, some of them pinned."""
    pinned = {a % max(len(shape), 1) for a in held}
    return [build.dim(n, pinned=reason if a in pinned else None) for a, n in enumerate(shape)]


def gather_nd(node: NodeView) -> Relation:
    """Axes that the indices cover are pinned, unless positions on one were chosen; batch axes and those behind pass."""
    data, picked = node.shape(0), node.shape(1)
    batch = int(node.attributes.get("batch_dims", 0))
    depth = picked[-1]
    chosen = depth == 1 and node.counts(1, data[batch])
    build = Builder()
    axes = passing(data, () if chosen else range(batch, batch + depth), build, LOOKED_UP)
    own = [*axes[:batch], *build.like(picked[batch:-1]), build.dim(depth, pinned=LOOKED_UP)]
    relation = build.relation([axes, own], [[*own[:-1], *axes[batch + depth :]]])
    return replace(relation, counts={("in", 1): axes[batch].dims[0]}) if chosen else relation


def scatter_nd(node: NodeView) -> Relation:
    """Axes that the indices cover and those of the updates are pinned; those behind pass, in data and updates."""
    data, picked = node.shape(0), node.shape(1)
    depth = picked[-1]
    build = Builder()
    axes = passing(data, range(depth), build, LOOKED_UP)
    own = [build.dim(n, pinned=LOOKED_UP) for n in picked[:-1]]  # a masked update would still be written
    sides = [axes, [*own, build.dim(depth, pinned=LOOKED_UP)], [*own, *axes[depth:]]]
    return build.relation(sides, [axes], zero="0+2")


def scatter_elements(node: NodeView) -> Relation:
    """The axis is pinned unless positions on it were chosen; along the others all go together, where as long."""
    data, picked = node.shape(0), node.shape(1)
    axis = node.axis(0)
    chosen = node.counts(1, data[axis])
    build = Builder()
    axes = passing(data, () if chosen else [axis], build, LOOKED_UP)
    own = []
    for a, (n, m) in enumerate(zip(data, picked, strict=True)):
        if a != axis and n == m:
            own.append(axes[a])
        else:
            axes[a] = axes[a] if chosen and a == axis else build.dim(n, pinned=LOOKED_UP)
            own.append(build.dim(m, pinned=LOOKED_UP))
    relation = build.relation([axes, own, own], [axes], zero="0+2")
    return replace(relation, counts={("in", 1): axes[axis].dims[0]}) if chosen else relation


def tensor_scatter(node: NodeView) -> Relation:
    """TensorScatter: an update is written into a cache along one axis."""
    cache, update = node.shape(0), node.shape(1)
    axis = node.axis(-2)
    build = Builder()
    axes = passing(cache, [axis], build, LOOKED_UP)
    own = [build.dim(update[a], pinned=LOOKED_UP) if a == axis else axes[a] for a in range(len(update))]
    sides = [axes, own, [axes[0]] if node.has(2) else None][: len(node.inputs)]
    return replace(build.relation(sides, [axes], zero="0+1"), masks={2: None})


def one_hot(node: NodeView) -> Relation:
    """The new axis is pinned unless the indices are positions that were chosen."""
    target = node.out()
    axis = node.axis(-1, rank=len(target))
    off = node.value(2)
    whole = node.counted[0] if node.counted else 0
    chosen = 1 < whole <= target[axis] and off is not None and not np.asarray(off).reshape(-1)[0]
    build = Builder()
    axes = passing(target, () if chosen else [axis], build, "each element of it stands for one value of the indices")
    own = [axes[a] for a in range(len(target)) if a != axis]
    others = [None] * (len(node.inputs) - 1)
    if not chosen:
        return build.relation([own, *others], [axes], zero="")
    named = build.dim(whole)
    place = np.arange(target[axis])
    axes[axis] = AxisMap(named.dims, np.where(place < whole, place, -1))  # more than these stand for none

    def refit(value: Values | None, kept: Kept) -> Values | None:
        return None if value is None else np.full_like(value, len(kept(OUT0, axis)))

    relation = build.relation([own, *others], [axes], zero="", operands=(Operand(1, refit),))
    return replace(relation, counts={("in", 0): named.dims[0]})


def compress(node: NodeView) -> Relation:
    """The axis is pinned, without one everything is."""
    shape, target = node.shape(0), node.out()
    why = "which of its elements stay is computed by the model"
    build = Builder()
    if "axis" not in node.attributes:
        return build.relation([passing(shape, range(len(shape)), build, why), None], [[build.dim(target[0], why)]])
    axis = node.axis()
    axes = passing(shape, [axis], build, why)
    return build.relation([axes, None], [[*axes[:axis], build.dim(target[axis], why), *axes[axis + 1 :]]])


def whole(*held: int, names: tuple[str, ...] = (), zero: str = "0", reason: str = "it is treated as a whole") -> Rule:
    """The rule of an operator over one tensor that treats some axes as a whole.

    Args:
        held: pinned axes, counted from the front or, negative, from the back.
        names: attributes that name pinned axes.
        zero: as in Relation.
        reason: why.
    """

    def rule(node: NodeView) -> Relation:
        shape, target = node.shape(0), node.out()
        named = [int(node.attributes.get(n, 0)) for n in names]
        build = Builder()
        axes = passing(shape, [*held, *named], build, reason)
        out = [axes[a] if n == m else build.dim(m, reason) for a, (n, m) in enumerate(zip(shape, target, strict=True))]
        return build.relation([axes] + [None] * (len(node.inputs) - 1), [out], zero=zero)

    return described(rule, f"some axes are pinned ({reason}), the others pass")


def reverse_sequence(node: NodeView) -> Relation:
    """Time and batch axes are pinned."""
    held = (int(node.attributes.get("time_axis", 0)), int(node.attributes.get("batch_axis", 1)))
    return whole(*held, reason="it is reversed up to a length for each sequence")(node)


def spectrum(node: NodeView) -> Relation:
    """DFT: the signal's axis and the axis of real and imaginary parts are pinned."""
    axis = node.attributes.get("axis", 1) if node.opset < 20 else -2
    if node.opset >= 20 and node.has(2):
        given = node.value(2)
        if given is None:
            raise Unruled("its axis is computed from the data")
        axis = int(np.asarray(given).reshape(()))
    return whole(int(axis), -1, reason="each result needs all elements of its input")(node)


def resized(node: NodeView) -> Relation:
    """CenterCropPad: axes that change their size are pinned."""
    shape, target = node.shape(0), node.out()
    node.followed(1, "shape")
    places = [int(a) % len(shape) for a in node.attributes.get("axes", range(len(shape)))]

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if value is None:
            return None
        new = value.copy()
        for i, a in enumerate(places):
            if len(kept(OUT0, a)) != target[a]:
                new[i] = len(kept(OUT0, a))
        return new

    cropped = [a for a, (n, m) in enumerate(zip(shape, target, strict=True)) if n != m]
    return replace(whole(*cropped, reason="it is cropped")(node), operands=(Operand(1, refit),))


def columns(node: NodeView) -> Relation:
    """Col2Im: ``n (c !k) !l -> n c !*y``, with k the size of a block."""
    block = node.value(2)
    if block is None:
        raise Unruled("its block_shape (input 2) is computed from the data")
    inputs = (node.shape(0), None, None)
    sizes = {"k": int(np.prod(block))}
    reason = "each column is a block of the image"
    return bind(Line("n (c !k) !l, _, _ -> n c !*y", zero="0"), inputs, node.outputs, sizes=sizes, reason=reason)


def deformed(node: NodeView) -> Relation:
    """DeformConv: a convolution whose windows are displaced by offsets that it reads.

    Several groups of offsets share the channels out between them, so these stay.
    """
    mark = "" if int(node.attributes.get("offset_group", 1)) == 1 else "!"
    relation = bind(
        Line(
            f"n ({mark}g {mark}i) !*x, (g o) {mark}i !*k, n !f !*y, (g o), n !m !*y -> n (g o) !*y",
            zero="0*1+3",
            macs="n g i o *k *y",
        ),
        node.inputs,
        node.outputs,
        sizes={"g": int(node.attributes.get("group", 1))},
        reason="a window slides over it, or a group of offsets shares it",
        attributes={"group": "g"},
    )
    return replace(relation, kind="channel")
