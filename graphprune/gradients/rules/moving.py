"""Operators that move elements: their gradients move back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.gradients.rules.indexing import by_index
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import Tape, Term


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
    kind = b.g0.kind
    parts = [g if g is not None else y.zeros(kind) for g, y in zip(b.g, b.y, strict=True)]
    return [b.tape.join(parts, b.attr("axis", 0))]


@rule("Expand")
def _expand(b: Back) -> Sequence[Gradient]:
    return [b.g0.sum_to(b.x[0])]


@rule("Trilu")
@rule("Trilu", domain="com.microsoft")
def _triangle(b: Back) -> Sequence[Gradient]:
    k = b.raw[1] if b.has(1) else None
    return [b.tape.op("Trilu", b.g0, k, dims=b.x[0].dims, upper=b.attr("upper", 1))]


@rule("ReverseSequence")
def _reverse(b: Back) -> Sequence[Gradient]:
    return [b.tape.op("ReverseSequence", b.g0, b.raw[1], dims=b.x[0].dims, **b.attributes)]


@rule("DepthToSpace")
def _depth_to_space(b: Back) -> Sequence[Gradient]:
    size = b.attr("blocksize")
    if b.attr("mode", "DCR") == "DCR":
        return [b.tape.op("SpaceToDepth", b.g0, dims=b.x[0].dims, blocksize=size)]
    rows, columns, block = b.x[0].size(2), b.x[0].size(3), b.tape.constant([size])
    cut = b.g0.reshape(b.tape.join([b.tape.constant([0, -1]), rows, block, columns, block]))
    return [cut.transpose([0, 1, 3, 5, 2, 4]).shaped_as(b.x[0])]


@rule("SpaceToDepth")
def _space_to_depth(b: Back) -> Sequence[Gradient]:
    mode = b.attr("mode", "DCR")
    return [b.tape.op("DepthToSpace", b.g0, dims=b.x[0].dims, blocksize=b.attr("blocksize"), mode=mode)]


@rule("Tile")
def _tile(b: Back) -> Sequence[Gradient]:
    """Summed over the repetitions, which are axes of their own in front of each axis."""
    rank = b.x[0].rank
    if rank is None:
        return [by_index(b)]
    pairs = [b.raw[1].unsqueeze([1]), b.x[0].shape().unsqueeze([1])]
    shape = b.tape.op("Concat", *pairs, axis=1).reshape([-1])
    if b.raw[1].value is not None:
        shape = b.tape.join(
            [t for k, n in enumerate(b.raw[1].value) for t in (b.tape.constant([n]), b.x[0].size(k))] or [shape]
        )
    summed = b.g0.reshape(shape).sum(list(range(0, 2 * rank, 2)), keep=False) if rank else b.g0
    return [Term(b.tape, summed.name, summed.kind, b.x[0].dims)]


@rule("Pad")
def _pad(b: Back) -> Sequence[Gradient]:
    """What is padded is cut off and what is cut off padded; where padding copies, copies add up."""
    x, g, mode = b.x[0], b.g0, b.attr("mode", "constant")
    if mode != "constant":
        return [by_index(b)]
    pads, axes = b.raw[1], b.raw[3] if b.has(3) else None
    if axes is not None and axes.value is not None and x.rank is not None:
        pads, axes = _of_all(pads, [int(a) % x.rank for a in axes.value], x.rank), None
    back = b.tape.constant(-pads.value) if pads.value is not None else -pads
    dx = b.tape.op("Pad", g, back, None, axes, dims=x.dims) if b.needs(0) else None
    if not b.needs(2):
        return [dx]
    inside = b.tape.op("Pad", x.filled(1, g.kind), pads, None, axes, dims=g.dims)
    return [dx, None, b.tape.op("ReduceSum", g * (1 - inside), dims=(), keepdims=0).shaped_as(b.x[2])]


def _of_all(pads: Term, axes: Sequence[int], rank: int) -> Term:
    """Pads of all axes, by those of some."""
    tape, none = pads.tape, pads.tape.constant([0])
    each = [
        pads.cut(k, k + 1, 0) if pads.value is None else tape.constant([pads.value[k]]) for k in range(2 * len(axes))
    ]
    named = [dict(zip(axes, half, strict=True)) for half in (each[: len(axes)], each[len(axes) :])]
    return tape.join([half.get(k, none) for half in named for k in range(rank)])


@rule("Slice")
def _slice(b: Back) -> Sequence[Gradient]:
    """Zeros around what was taken, and between it, where steps are longer than one."""
    x, y = b.x[0], b.y[0]
    found = _bounds(b)
    if found is None or x.rank is None or b.g0.rank is None:
        return [by_index(b)]
    if y.dims is not None and 0 in y.dims:
        return [x.zeros(b.g0.kind)]
    axes = [a % x.rank for a, _, _ in found]
    g, before, after = b.g0, [], []
    g = _spread(g, [(axis, step) for axis, (_, _, step) in zip(axes, found, strict=True)])
    for axis, (_, start, step) in zip(axes, found, strict=True):
        size, count = x.size(axis), y.size(axis)
        first = _first(b.tape, start, size, step)
        if abs(step) > 1 or step < 0:  # sizes are known
            taken = _number(count)
            lowest = _number(first) + min((taken - 1) * step, 0)
            before.append(b.tape.constant([lowest]))
            after.append(b.tape.constant([_number(size) - lowest - taken * abs(step)]))
            continue
        before.append(first)
        after.append(_difference(size, count, first))
    return [g.padded(axes, before, after, x.dims)]


def _bounds(b: Back) -> list[tuple[int, int, int]] | None:
    """Axis, start and step, where they are known, and sizes too where a step is not one."""
    starts, steps = b.value(1), b.value(4) if b.has(4) else None
    axes = b.value(3) if b.has(3) else (np.arange(len(starts)) if starts is not None else None)
    if starts is None or axes is None or (b.has(4) and steps is None):
        return None
    every = [1] * len(starts) if steps is None else [int(s) for s in steps]
    for axis, step in zip(axes, every, strict=True):
        sizes = [t.dims[axis] if t.dims is not None else None for t in (b.x[0], b.y[0])]
        if step != 1 and not all(isinstance(d, int) for d in sizes):
            return None
    return [(int(a), int(s), t) for a, s, t in zip(axes, starts, every, strict=True)]


def _number(term: Term) -> int:
    assert term.value is not None
    return int(term.value.reshape(-1)[0])


def _first(tape: Tape, start: int, size: Term, step: int) -> Term:
    """Where a slice starts: bounds outside are moved to the end."""
    if size.value is not None:
        length = _number(size)
        at = start + length if start < 0 else start
        return tape.constant([min(max(at, 0), length - (step < 0))])
    if start == 0:
        return tape.constant([0])
    if start < 0:
        return tape.op("Max", size + start, tape.constant([0]), dims=(1,))
    return tape.op("Min", size, tape.constant([start]), dims=(1,))


def _difference(size: Term, count: Term, first: Term) -> Term:
    if size.value is not None and count.value is not None and first.value is not None:
        return size.tape.constant([_number(size) - _number(count) - _number(first)])
    rest = size - count
    return rest if first.value is not None and not first.value.any() else rest - first


def _spread(g: Term, steps: Sequence[tuple[int, int]]) -> Term:
    """Elements in ascending order, each with zeros behind it, as many as its step goes over."""
    tape = g.tape
    for axis in [a for a, s in steps if s < 0]:
        g = tape.op("Slice", g, *(tape.constant([v]) for v in (-1, -(2**62), axis, -1)), dims=g.dims)
    wide = [(a, abs(s)) for a, s in steps if abs(s) > 1]
    if not wide or g.dims is None:
        return g
    apart: list[int] = []
    shape: list[Term] = []
    widths = dict(wide)
    for k in range(len(g.dims)):
        if k in widths:
            apart.append(k + 1 + len(apart))
            shape.append(tape.constant([_number(g.size(k)) * widths[k]]))
        else:
            shape.append(g.size(k))
    behind = [tape.constant([step - 1]) for _, step in sorted(wide)]
    split = g.unsqueeze(apart).padded(apart, [tape.constant([0])] * len(apart), behind, None)
    dims = tuple(int(t.value[0]) if t.value is not None else d for t, d in zip(shape, g.dims, strict=True))
    return Term(tape, split.reshape(tape.join(shape)).name, g.kind, dims)
