"""Rules of operators that cut tensors, join them, or look elements up by constant places."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import numpy as np

from graphprune.relation import AxisMap, Builder, IntArray, Kept, Operand, Relation, Shape, Values
from graphprune.rules.node import IN0, OUT0, NodeView, Unruled


def through(axis: AxisMap, lookup: IntArray) -> AxisMap:
    """The axis that holds the given elements of a dim.

    Raises:
        Unruled: none of an axis that is no dim, since it has one element.
    """
    if not axis.dims and len(lookup) == 0:
        raise Unruled("it takes nothing of a single element")
    return AxisMap(axis.dims, lookup) if axis.dims else axis


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


@dataclass(frozen=True)
class _Cut:
    """What a slice takes, and how its operands follow when elements of its input go.

    Attributes:
        starts, ends, strides: the operands, an entry for each axis in ``places``.
        places: the axes that they speak of.
        taken: for axes that are cut at places known beforehand the elements that stay.
        shortened: those of them of which the output holds a part, or all in another order.
        shape: of the input.
    """

    starts: Values
    ends: Values
    strides: list[int]
    places: list[int]
    taken: Mapping[int, IntArray]
    shortened: Set[int]
    shape: Shape

    def positions(self, a: int, kept: Kept) -> IntArray:
        """Where elements that stay on the output lie among those that stay on the input."""
        return np.searchsorted(kept(IN0, a), self.taken[a][kept(OUT0, a)])

    def changed(self, a: int, kept: Kept) -> bool:
        """Whether an axis that is cut has lost elements."""
        return a in self.shortened and len(kept(IN0, a)) != self.shape[a]

    def irregular(self, a: int, kept: Kept) -> bool:
        """Whether no slice takes what stays of it."""
        return self.changed(a, kept) and len(np.unique(np.diff(self.positions(a, kept)))) > 1

    def refit_starts(self, value: Values | None, kept: Kept) -> Values | None:
        """The first place; 0 where positions are picked instead, and of an empty piece."""
        new = self.starts.copy()
        for i, a in enumerate(self.places):
            if self.changed(a, kept):
                new[i] = 0 if self.irregular(a, kept) else next(iter(self.positions(a, kept)), 0)
        return new

    def refit_ends(self, value: Values | None, kept: Kept) -> Values | None:
        """One step behind the last place."""
        new = self.ends.copy()
        for i, a in enumerate(self.places):
            if self.irregular(a, kept):
                new[i] = np.iinfo(np.int32).max
            elif self.changed(a, kept) and len(self.taken[a]) == 0:
                new[i] = 0
            elif self.changed(a, kept):
                last, sign = self.positions(a, kept)[-1], 1 if self.strides[i] > 0 else -1
                new[i] = last + sign if last + sign >= 0 else np.iinfo(np.int32).min
        return new

    def refit_steps(self, value: Values | None, kept: Kept) -> Values | None:
        """How far places lie apart."""
        new = np.asarray(self.strides, dtype=np.int64)
        for i, a in enumerate(self.places):
            if self.irregular(a, kept):
                new[i] = 1
            elif self.changed(a, kept):
                gaps = np.diff(self.positions(a, kept))
                new[i] = gaps[0] if len(gaps) else new[i]
        return None if value is None and (new == 1).all() else new

    def picks(self, kept: Kept) -> dict[int, IntArray]:
        """What must be picked where no slice takes it."""
        return {a: self.positions(a, kept) for a in self.taken if self.irregular(a, kept)}


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
        taken[a] = np.arange(n)[_python_slice(int(first), int(last), step, n)]
        if len(taken[a]) != n or step != 1:
            target[a] = through(axes[a], taken[a])
    shortened = {a for a in taken if target[a] is not axes[a]}
    cut = _Cut(starts, ends, strides, places, taken, shortened, shape)
    old = node.opset < 10
    operands = (
        Operand(1, cut.refit_starts, attribute="starts" if old else None),
        Operand(2, cut.refit_ends, attribute="ends" if old else None),
        *([] if old else [Operand(4, cut.refit_steps)]),
    )
    relation = build.relation([axes] + [None] * (len(node.inputs) - 1), [target], operands=operands)
    return replace(relation, picks=cut.picks)


def _python_slice(start: int, stop: int, step: int, size: int) -> slice:
    """ONNX clamps as Python does, but a stop below ``-size`` means 'past the front' only for negative steps."""
    if step < 0 and stop < -size:
        return slice(start, None, step)
    return slice(start, stop, step)


def gather(node: NodeView) -> Relation:
    """With constant indices a lookup; with computed ones the looked-up axis is pinned, unless these were chosen."""
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
    chosen = node.counts(1, data[axis])
    why = None if chosen else "its elements are looked up by indices that the model computes"
    axes = [build.dim(s, pinned=why if a == axis else None) for a, s in enumerate(data)]
    own = build.like(picked)
    relation = build.relation([axes, own], [[*axes[:axis], *own, *axes[axis + 1 :]]])
    relation = replace(relation, numbers=dict(zip((1,), axes[axis].dims, strict=False)))
    return replace(relation, counts={("in", 1): axes[axis].dims[0]}) if chosen else relation


def _select_one(node: NodeView, axis: int) -> Relation:
    data, picked = node.shape(0), node.inputs[1] or ()
    build = Builder()
    why = "elements of it are picked by constant indices"
    axes = [build.dim(s, pinned=why if a == axis else None) for a, s in enumerate(data)]
    fresh = [build.dim(s, pinned=why) for s in picked]
    return build.relation([axes, None], [[*axes[:axis], *fresh, *axes[axis + 1 :]]])


def gather_elements(node: NodeView) -> Relation:
    """The looked-up axis is pinned unless positions on it were chosen; else data and indices go together."""
    data, picked = node.shape(0), node.shape(1)
    axis = node.axis(0)
    chosen = node.counts(1, data[axis])
    build = Builder()
    why = "its elements are looked up one by one"
    axes, own = [], []
    for a, (n, m) in enumerate(zip(data, picked, strict=True)):
        if a != axis and n == m:
            axes.append(build.dim(n))
            own.append(axes[-1])
        else:
            axes.append(build.dim(n, pinned=None if chosen and a == axis else why))
            own.append(build.dim(m, pinned=why))
    relation = build.relation([axes, own], [own])
    return replace(relation, counts={("in", 1): axes[axis].dims[0]}) if chosen else relation
