"""Rules of operators that only move elements: reshape, reorder, cut, join, repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np
from onnx import numpy_helper

from graphprune.relation import Axes, AxisMap, Dim, IntArray, Kept, Operand, Relation, Shape, Values
from graphprune.relation.notation import bind
from graphprune.rules.node import NodeView, Unruled

IN0, OUT0 = ("in", 0), ("out", 0)


class Builder:
    """Collects dims and axes of a relation that no pattern can write."""

    def __init__(self) -> None:
        self.dims: list[Dim] = []

    def dim(self, size: int, pinned: str | None = None, name: str | None = None) -> AxisMap:
        """A new dim, as the map of an axis that is this dim."""
        if size == 1:
            return AxisMap(())
        self.dims.append(Dim(name or _letters(len(self.dims)), size, pinned))
        return AxisMap((len(self.dims) - 1,))

    def like(self, shape: Shape) -> list[AxisMap]:
        """A new dim for each axis of a shape."""
        return [self.dim(size) for size in shape]

    def relation(
        self,
        inputs: Sequence[Sequence[AxisMap] | None],
        outputs: Sequence[Sequence[AxisMap] | None],
        zero: str = "0",
        operands: tuple[Operand, ...] = (),
    ) -> Relation:
        """The finished relation."""

        def fixed(side: Sequence[Sequence[AxisMap] | None]) -> tuple[Axes | None, ...]:
            return tuple(None if axes is None else tuple(axes) for axes in side)

        return Relation(tuple(self.dims), fixed(inputs), fixed(outputs), zero=zero, operands=operands)


def _letters(number: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return alphabet[number % 26] + (str(number // 26) if number >= 26 else "")


def through(axis: AxisMap, lookup: IntArray) -> AxisMap:
    """The axis that holds the given elements of a dim.

    Raises:
        Unruled: none of an axis that is no dim, since it has one element.
    """
    if not axis.dims and len(lookup) == 0:
        raise Unruled("it takes nothing of a single element")
    return AxisMap(axis.dims, lookup) if axis.dims else axis


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


# --- cut and join ---------------------------------------------------------------------------------------------------


def concat(node: NodeView) -> Relation:
    """One dim that is as long as the output; each input is a stretch of it."""
    target = node.out()
    axis = node.axis(rank=len(target))
    build = Builder()
    axes = build.like(target)
    inputs: list[list[AxisMap] | None] = []
    start = 0
    for shape in node.inputs:
        if shape is None:
            raise Unruled("the shape of one of its inputs is not known")
        own = list(axes)
        own[axis] = through(axes[axis], np.arange(start, start + shape[axis]))
        start += shape[axis]
        inputs.append(own)
    return build.relation(inputs, [axes], zero="+".join(map(str, range(len(inputs)))))


def split(node: NodeView) -> Relation:
    """One dim that is as long as the input; each output is a stretch of it."""
    shape = node.shape(0)
    axis = node.axis(0)
    sizes = node.operand(1, "split")
    if sizes is None:
        count = len(node.outputs)
        size = -(-shape[axis] // int(node.attributes.get("num_outputs", count)))
        sizes = np.clip(shape[axis] - size * np.arange(count), 0, size)
    build = Builder()
    axes = build.like(shape)
    outputs: list[list[AxisMap] | None] = []
    ends = np.cumsum(sizes)
    for i, given in enumerate(node.outputs):
        own = list(axes)
        own[axis] = through(axes[axis], np.arange(ends[i] - sizes[i], ends[i]))
        outputs.append(None if given is None else own)

    def refit(value: Values | None, kept: Kept) -> Values | None:
        new = sizes.copy()
        alive = np.zeros(shape[axis], bool)
        alive[kept(IN0, axis)] = True
        for i in range(len(sizes)):
            new[i] = alive[ends[i] - sizes[i] : ends[i]].sum()
        if value is None and (new == new[0]).all():
            return None
        return np.asarray(new, dtype=np.int64)

    held = "split" if node.opset < 13 else None
    return build.relation(
        [axes] + [None] * (len(node.inputs) - 1),
        outputs,
        operands=(Operand(1, refit, attribute=held, drops=("num_outputs",)),),
    )


def slice_(node: NodeView) -> Relation:
    """Each axis of the output holds the elements of the input that Python's slice takes."""
    shape = node.shape(0)
    starts, ends = node.operand(1, "starts", moving=True), node.operand(2, "ends", moving=True)
    if starts is None or ends is None:
        raise Unruled("it has no starts or ends")
    axes_operand, steps = node.operand(3, "axes"), node.operand(4, "steps")
    places = [int(a) % len(shape) for a in (range(len(starts)) if axes_operand is None else axes_operand)]
    strides = [1] * len(places) if steps is None else [int(s) for s in steps]
    build = Builder()
    axes = build.like(shape)
    target = list(axes)
    taken: dict[int, IntArray] = {}
    fixed = np.broadcast_to(node.fixed(1) & node.fixed(2), len(places))
    for a, first, last, step, still in zip(places, starts, ends, strides, fixed, strict=True):
        n = shape[a]
        if not still:
            why = "it is cut at a place that depends on the sizes of the inputs"
            axes[a] = build.dim(n, pinned=why)
            target[a] = build.dim(node.out()[a], pinned=why)
            continue
        elements = np.arange(n)[_python_slice(int(first), int(last), step, n)]
        taken[a] = elements
        if len(elements) != n or step != 1:
            target[a] = through(axes[a], elements)

    def positions(a: int, kept: Kept) -> IntArray:
        return np.searchsorted(kept(IN0, a), taken[a][kept(OUT0, a)])

    def changed(a: int, kept: Kept) -> bool:
        return a in taken and len(kept(IN0, a)) != shape[a] and target[a] is not axes[a]

    def irregular(a: int, kept: Kept) -> bool:
        return changed(a, kept) and len(np.unique(np.diff(positions(a, kept)))) > 1

    def refit_starts(value: Values | None, kept: Kept) -> Values | None:
        new = starts.copy()
        for i, a in enumerate(places):
            if changed(a, kept):
                new[i] = 0 if irregular(a, kept) else next(iter(positions(a, kept)), 0)  # an empty piece: 0 to 0
        return new

    def refit_ends(value: Values | None, kept: Kept) -> Values | None:
        new = ends.copy()
        for i, a in enumerate(places):
            if irregular(a, kept):
                new[i] = np.iinfo(np.int32).max
            elif changed(a, kept) and len(taken[a]) == 0:
                new[i] = 0
            elif changed(a, kept):
                last, sign = positions(a, kept)[-1], 1 if strides[i] > 0 else -1
                new[i] = last + sign if last + sign >= 0 else np.iinfo(np.int32).min
        return new

    def refit_steps(value: Values | None, kept: Kept) -> Values | None:
        new = np.asarray(strides, dtype=np.int64)
        for i, a in enumerate(places):
            if irregular(a, kept):
                new[i] = 1
            elif changed(a, kept):
                gaps = np.diff(positions(a, kept))
                new[i] = gaps[0] if len(gaps) else new[i]
        return None if value is None and (new == 1).all() else new

    def picks(kept: Kept) -> dict[int, IntArray]:
        return {a: positions(a, kept) for a in taken if irregular(a, kept)}

    old = node.opset < 10
    operands = (
        Operand(1, refit_starts, attribute="starts" if old else None),
        Operand(2, refit_ends, attribute="ends" if old else None),
        *([] if old else [Operand(4, refit_steps)]),
    )
    relation = build.relation([axes] + [None] * (len(node.inputs) - 1), [target], operands=operands)
    return replace(relation, picks=picks)


def _python_slice(start: int, stop: int, step: int, size: int) -> slice:
    """ONNX clamps as Python does, but a stop below ``-size`` means 'past the front' only for negative steps."""
    if step < 0 and stop < -size:
        return slice(start, None, step)
    return slice(start, stop, step)


def gather(node: NodeView) -> Relation:
    """With constant indices a lookup; with computed ones the looked-up axis is pinned."""
    data, picked = node.shape(0), node.inputs[1]
    if picked is None:
        raise Unruled("the shape of its indices is not known")
    axis = node.axis(0)
    indices = node.value(1)
    build = Builder()
    if indices is not None and indices.ndim == 1 and data[axis] > 1:
        axes = build.like(data)
        wanted = np.asarray(indices, dtype=np.int64) % data[axis]
        target = [*axes[:axis], through(axes[axis], wanted), *axes[axis + 1 :]]
        if len(wanted) == 1:
            return _select_one(node, axis)

        def refit(value: Values | None, kept: Kept) -> Values | None:
            stay = kept(IN0, axis)
            if len(stay) == data[axis] or value is None:
                return value
            return np.searchsorted(stay, wanted[kept(OUT0, axis)])

        return build.relation([axes, None], [target], operands=(Operand(1, refit),))
    if indices is not None:
        return _select_one(node, axis)
    why = "its elements are looked up by indices that the model computes"
    axes = [build.dim(s, pinned=why if a == axis else None) for a, s in enumerate(data)]
    own = build.like(picked)
    return build.relation([axes, own], [[*axes[:axis], *own, *axes[axis + 1 :]]])


def _select_one(node: NodeView, axis: int) -> Relation:
    data, picked = node.shape(0), node.inputs[1] or ()
    build = Builder()
    why = "elements of it are picked by constant indices"
    axes = [build.dim(s, pinned=why if a == axis else None) for a, s in enumerate(data)]
    fresh = [build.dim(s, pinned=why) for s in picked]
    return build.relation([axes, None], [[*axes[:axis], *fresh, *axes[axis + 1 :]]])


def gather_elements(node: NodeView) -> Relation:
    """The looked-up axis is pinned; along the others, data and indices go together."""
    data, picked = node.shape(0), node.shape(1)
    axis = node.axis(0)
    build = Builder()
    why = "its elements are looked up one by one"
    axes, own = [], []
    for a, (n, m) in enumerate(zip(data, picked, strict=True)):
        if a != axis and n == m:
            axes.append(build.dim(n))
            own.append(axes[-1])
        else:
            axes.append(build.dim(n, pinned=why))
            own.append(build.dim(m, pinned=why))
    return build.relation([axes, own], [own])


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
    return bind(f"{deep} -> n c (h !p) (w !q)", node.inputs, node.outputs, sizes=sizes, zero="0")


def space_to_depth(node: NodeView) -> Relation:
    """``n c (h p) (w q) -> n (p q c) h w``, or with the blocks inside the channels."""
    size = node.integer("blocksize")
    deep = "n (c !p !q) h w" if node.attributes.get("mode", b"DCR") == b"CRD" else "n (!p !q c) h w"
    pattern = f"n c (h !p) (w !q) -> {deep}"
    return bind(pattern, node.inputs, node.outputs, sizes={"p": size, "q": size}, zero="0")


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
