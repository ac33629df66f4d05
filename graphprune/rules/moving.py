"""Rules of operators that only move elements: reshape, reorder, repeat, pad. What cuts and joins is in ``cutting``."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np
from onnx import numpy_helper

from graphprune.relation import Axes, AxisMap, Builder, Kept, Operand, Relation, Shape, Values
from graphprune.relation.binding import bind
from graphprune.relation.notation import Line
from graphprune.rules.cutting import through
from graphprune.rules.node import IN0, OUT0, NodeView, Unruled

# --- reshape family: both shapes cut into common factors ------------------------------------------------------------


def reshape(node: NodeView) -> Relation:
    """``b s (h d) -> b s h d`` and the like, found by factoring both shapes."""
    source, target = node.shape(0), node.out()
    if node.op == "Reshape":
        node.followed(1, "shape")
    if 0 in source:
        raise Unruled("it holds no elements")
    build = Builder()
    left: list[AxisMap] = [AxisMap(())] * len(source)
    right: list[AxisMap] = [AxisMap(())] * len(target)
    for ins, outs in blocks(source, target):
        sizes = common_factors([source[i] for i in ins], [target[o] for o in outs])
        if sizes is None:
            why = f"the reshape {source} to {target} mixes this axis with its neighbours"
            for axes, shape, places in ((left, source, ins), (right, target, outs)):
                for p in places:
                    axes[p] = build.dim(shape[p], pinned=why)
            continue
        first = len(build.dims)
        for size in sizes:
            build.dim(size)
        for axes, shape, places in ((left, source, ins), (right, target, outs)):
            _deal(axes, shape, places, sizes, first)
    operand = (Operand(1, _refit_sizes, infers=True),) if node.has(1) and node.op == "Reshape" else ()
    others: list[Axes | None] = [None] * (len(node.inputs) - 1)
    return replace(build.relation([left, *others], [right], operands=operand), moves=tuple(range(len(source))))


def _deal(axes: list[AxisMap], shape: Shape, places: list[int], sizes: list[int], first: int) -> None:
    """Hand the factors, in order, to the axes whose product they make."""
    factor = 0
    for p in places:
        start, size = factor, 1
        while size < shape[p]:
            size *= sizes[factor]
            factor += 1
        axes[p] = AxisMap(tuple(range(first + start, first + factor)))


def blocks(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes of both shapes whose products agree; axes of size 1 are in none."""
    found = []
    ins = [i for i, s in enumerate(source) if s != 1]
    outs = [o for o, s in enumerate(target) if s != 1]
    i = o = 0
    while i < len(ins) and o < len(outs):
        left, right = [ins[i]], [outs[o]]
        a, b = source[ins[i]], target[outs[o]]
        i, o = i + 1, o + 1
        while a != b:
            if a < b and i < len(ins):
                a *= source[ins[i]]
                left.append(ins[i])
                i += 1
            elif b < a and o < len(outs):
                b *= target[outs[o]]
                right.append(outs[o])
                o += 1
            else:
                raise Unruled(f"shapes {source} and {target} hold different numbers of elements")
        found.append((left, right))
    return found


def common_factors(source: list[int], target: list[int]) -> list[int] | None:
    """Sizes whose runs multiply to the sizes of both sides, or None if there are none (``6 4 -> 4 6``)."""
    cuts = sorted({prod(side[:i]) for side in (source, target) for i in range(len(side) + 1)})
    if any(b % a for a, b in pairwise(cuts)):
        return None
    return [b // a for a, b in pairwise(cuts)]


def _refit_sizes(value: Values | None, kept: Kept) -> Values | None:
    """Reshape's shape: -1 goes on being inferred, 0 goes on copying where that still gives the right size."""
    if value is None:
        return None
    new = value.copy()
    for axis, entry in enumerate(value):
        size = len(kept(OUT0, axis))
        if entry == -1 or (entry == 0 and _size_or_none(kept, axis) == size):
            continue
        new[axis] = size
    return new


def _size_or_none(kept: Kept, axis: int) -> int | None:
    try:
        return len(kept(IN0, axis))
    except IndexError:
        return None


def transpose(node: NodeView) -> Relation:
    """The same dims in another order."""
    shape = node.shape(0)
    build = Builder()
    axes = build.like(shape)
    order = tuple(int(p) for p in node.attributes.get("perm", range(len(shape))[::-1]))
    return replace(build.relation([axes], [[axes[p] for p in order]]), moves=order)


# --- repeat and pad -------------------------------------------------------------------------------------------------


def expand(node: NodeView) -> Relation:
    """Axes that are repeated from size 1 are dims of their own."""
    source, target = node.shape(0), node.out()
    node.followed(1, "shape")
    build = Builder()
    axes = build.like(target)
    lead = len(target) - len(source)
    own = [axes[lead + a] if s != 1 else AxisMap(()) for a, s in enumerate(source)]

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if value is None:
            return None
        new = value.copy()
        for i, entry in enumerate(value):
            size = len(kept(OUT0, len(target) - len(value) + i))
            if entry != 1 and size != target[len(target) - len(value) + i]:
                new[i] = size
        return new

    return build.relation([own, None], [axes], operands=(Operand(1, refit),))


def tile(node: NodeView) -> Relation:
    """``a b -> (r a) (s b)``."""
    source, target = node.shape(0), node.out()
    node.followed(1, "repeats")
    build = Builder()
    if 0 in source:
        raise Unruled("it holds no elements")
    axes = build.like(source)
    counts = [build.dim(t // s) for s, t in zip(source, target, strict=True)]
    wide = [AxisMap(r.dims + a.dims) for r, a in zip(counts, axes, strict=True)]

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if value is None:
            return None
        new = value.copy()
        for a in range(len(source)):
            if len(kept(OUT0, a)) != target[a]:
                new[a] = len(kept(OUT0, a)) // len(kept(IN0, a))
        return new

    return build.relation([axes, None], [wide], operands=(Operand(1, refit),))


def pad(node: NodeView) -> Relation:
    """Padded elements belong to no element of the input."""
    source = node.shape(0)
    pads = node.operand(1, "pads")
    if pads is None:
        raise Unruled("it has no pads")
    chosen = node.operand(3, "axes")
    places = [int(a) % len(source) for a in (range(len(source)) if chosen is None else chosen)]
    mode = node.attributes.get("mode", b"constant")
    build = Builder()
    axes, target = build.like(source), []
    ends: dict[int, tuple[int, int]] = {a: (int(pads[i]), int(pads[i + len(places)])) for i, a in enumerate(places)}
    for a, n in enumerate(source):
        before, after = ends.get(a, (0, 0))
        if (before, after) == (0, 0):
            target.append(axes[a])
        elif mode != b"constant" or before < 0 or after < 0 or n == 1:
            why = "it is cropped, or padded from its own elements"
            axes[a] = build.dim(n, pinned=why)
            target.append(build.dim(node.out()[a], pinned=why))
        else:
            lookup = np.concatenate([np.full(before, -1), np.arange(n), np.full(after, -1)])
            target.append(through(axes[a], lookup))
    return build.relation([axes] + [None] * (len(node.inputs) - 1), [target])


def constant_of_shape(node: NodeView) -> Relation:
    """Its axes follow whatever they meet."""
    node.followed(0, "shape")
    build = Builder()
    given = node.attributes.get("value")
    zero = "" if given is not None and np.any(numpy_helper.to_array(given)) else "always"

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if value is None:
            return None
        return np.array([len(kept(OUT0, axis)) for axis in range(len(value))], dtype=value.dtype)

    return build.relation([None], [build.like(node.out())], zero=zero, operands=(Operand(0, refit),))


def depth_to_space(node: NodeView) -> Relation:
    """``n (p q c) h w -> n c (h p) (w q)``, or with the blocks inside the channels."""
    size = node.integer("blocksize")
    deep = "n (c !p !q) h w" if node.attributes.get("mode", b"DCR") == b"CRD" else "n (!p !q c) h w"
    sizes = {"p": size, "q": size}
    return bind(Line(f"{deep} -> n c (h !p) (w !q)", zero="0"), node.inputs, node.outputs, sizes=sizes)


def space_to_depth(node: NodeView) -> Relation:
    """``n c (h p) (w q) -> n (p q c) h w``, or with the blocks inside the channels."""
    size = node.integer("blocksize")
    deep = "n (c !p !q) h w" if node.attributes.get("mode", b"DCR") == b"CRD" else "n (!p !q c) h w"
    pattern = f"n c (h !p) (w !q) -> {deep}"
    return bind(Line(pattern, zero="0"), node.inputs, node.outputs, sizes={"p": size, "q": size})


def resize(node: NodeView) -> Relation:
    """Axes that keep their size pass; those that are resampled, or sized by each other, are pinned."""
    source, target = node.shape(0), node.out()
    if node.op == "Resize":
        node.followed(3, "sizes")
    build = Builder()
    axes, wide = [], []
    places = [int(a) % len(source) for a in node.attributes.get("axes", range(len(source)))]
    tied = set(places) if node.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" else set()
    for a, (n, m) in enumerate(zip(source, target, strict=True)):
        if n == m and a not in tied:
            axes.append(build.dim(n))
            wide.append(axes[-1])
        else:
            axes.append(build.dim(n, pinned="it is resampled"))
            wide.append(build.dim(m, pinned="it is resampled"))

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if value is None or len(value) != len(places):
            return value
        new = value.copy()
        for i, a in enumerate(places):
            if len(kept(OUT0, a)) != target[a]:
                new[i] = len(kept(OUT0, a))
        return new

    operands = (Operand(3, refit),) if node.op == "Resize" and node.has(3) else ()
    return build.relation([axes] + [None] * (len(node.inputs) - 1), [wide], operands=operands)


def sizes_only(node: NodeView) -> Relation:
    """Shape and Size read sizes, not elements: any of these may go. What they make is followed as a value."""
    build = Builder()
    return build.relation([build.like(node.shape(0))], [None] * len(node.outputs))
