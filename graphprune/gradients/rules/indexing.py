"""Operators that read and write where indices say: gradients are written and read there.

What is read several times adds up. Repeated indices that write are well defined where writes are added, multiplied or
compared; the gradient of ties of a comparison goes to all in equal shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from graphprune.gradients.table import GRADIENT, Back, Gradient, rule
from graphprune.gradients.terms import INT, Array, Term


def by_index(b: Back) -> Term:
    """The gradient of an operator that copies elements of its first input, whatever it does with them.

    The operator itself tells where each element comes from: it is run on the numbers of the elements. What was copied
    several times adds up.
    """
    return sent_back(b, 1)[0]


def sent_back(b: Back, inputs: int) -> list[Term]:
    """As :func:`by_index`, for operators that copy elements of their first inputs, of as many as ``inputs``."""
    tape, kind, xs = b.tape, b.g0.kind, b.x[:inputs]
    counts = tape.join([x.count().reshape([1]) for x in xs])
    total = tape.constant([int(counts.value.sum())]) if counts.value is not None else counts.sum([0])
    numbers = _parts(tape.op("Range", tape.constant(0), total.reshape([]), tape.constant(1), kind=INT), counts, xs)
    fills = {t.name for t in b.raw[inputs:] if b.known.kinds.get(t.name) in GRADIENT}  # read by no copy
    rest = [t if t.name and t.name not in fills else None for t in b.raw[inputs:]]
    source = tape.op(b.node.op_type, *numbers, *rest, kind=INT, domain=b.node.domain, **b.attributes)
    zeros = tape.op("ConstantOfShape", total, kind=kind, value=_zero(kind))
    moved = (source.reshape([-1]), b.g0.reshape([-1]))
    return _parts(tape.op("ScatterElements", zeros, *moved, kind=kind, axis=0, reduction="add"), counts, xs)


def _parts(flat: Term, counts: Term, xs: Sequence[Term]) -> list[Term]:
    """A vector cut up into tensors of these shapes."""
    tape = flat.tape
    cut = [flat] if len(xs) == 1 else tape.ops("Split", flat, counts, kinds=[flat.kind] * len(xs), axis=0)
    return [Term(tape, t.reshape(x.shape()).name, t.kind, x.dims) for t, x in zip(cut, xs, strict=True)]


def _zero(kind: int) -> TensorProto:
    return helper.make_tensor("zero", kind, [1], [0])


@rule("Compress")
def _compress(b: Back) -> Sequence[Gradient]:
    return [by_index(b)]


@rule("TensorScatter")
def _tensor_scatter(b: Back) -> Sequence[Gradient]:
    return sent_back(b, 2)


@rule("GatherElements")
def _gather_elements(b: Back) -> Sequence[Gradient]:
    zeros = b.x[0].zeros(b.g0.kind)
    axis = b.attr("axis", 0)
    return [b.tape.op("ScatterElements", zeros, b.raw[1], b.g0, dims=zeros.dims, axis=axis, reduction="add")]


@rule("TopK")
def _top(b: Back) -> Sequence[Gradient]:
    at = b.raw_output(1)
    if at is None:
        _, at = b.tape.ops("TopK", *b.raw, kinds=(None, INT), dims=(None, b.y[0].dims), **b.attributes)
    zeros = b.x[0].zeros(b.g0.kind)
    return [b.tape.op("ScatterElements", zeros, at, b.g0, dims=zeros.dims, axis=b.attr("axis", -1))]


@rule("GatherND")
@rule("GatherND", domain="com.microsoft")
def _gather_nd(b: Back) -> Sequence[Gradient]:
    if b.attr("batch_dims", 0):
        return [by_index(b)]
    zeros = b.x[0].zeros(b.g0.kind)
    return [b.tape.op("ScatterND", zeros, b.raw[1].cast(INT), b.g0, dims=zeros.dims, reduction="add")]


@rule("Gather")
def _gather(b: Back) -> Sequence[Gradient]:
    """Added into zeros, at rows; what lies one behind the other is padded instead."""
    x, at, g = b.x[0], b.raw[1], b.g0
    if x.rank is None or at.rank is None:
        return [by_index(b)]
    axis = b.attr("axis", 0) % x.rank
    run = _run(at.value, x.dims[axis] if x.dims is not None else None)
    if run is not None:
        return [_put_back(b, axis, *run)]
    width = at.rank
    order = [*range(axis, axis + width), *range(axis), *range(axis + width, x.rank - 1 + width)]
    front = [axis, *(k for k in range(x.rank) if k != axis)]
    shape = b.tape.join([x.size(k) for k in front])
    zeros = b.tape.op("ConstantOfShape", shape, kind=g.kind, value=_zero(g.kind))
    rows = at.cast(INT).unsqueeze([width])
    added = b.tape.op("ScatterND", zeros, rows, g.transpose(order), kind=g.kind, reduction="add")
    back = added.transpose(sorted(range(x.rank), key=lambda k: front[k]))
    return [Term(b.tape, back.name, g.kind, x.dims)]


def _run(at: Array | None, length: object) -> tuple[int, int] | None:
    """Start and number of indices that go up one by one, None where they do not."""
    if at is None or at.ndim > 1 or not at.size:
        return None
    flat = at.reshape(-1)
    if flat[0] < 0 and isinstance(length, int):
        flat = np.where(flat < 0, flat + length, flat)
    ascending = flat[0] >= 0 and np.array_equal(flat, flat[0] + np.arange(flat.size))
    return (int(flat[0]), int(flat.size)) if ascending else None


def _put_back(b: Back, axis: int, start: int, count: int) -> Term:
    """A run of rows among zeros."""
    x, tape = b.x[0], b.tape
    g = b.g0 if b.raw[1].rank == 1 else b.g0.unsqueeze([axis])
    size = x.size(axis)
    rest = tape.constant(size.value - start - count) if size.value is not None else size - (start + count)
    return g.padded([axis], [tape.constant([start])], [rest], x.dims)


@rule("OneHot")
def _one_hot(b: Back) -> Sequence[Gradient]:
    """Of its two values: what is at the places of each."""
    g, tape = b.g0, b.tape
    values = tape.constant([0, 1], g.kind)
    hot = tape.op("OneHot", b.raw[0], b.raw[1], values, kind=g.kind, dims=g.dims, axis=b.attr("axis", -1))
    on = tape.op("ReduceSum", g * hot, dims=(), keepdims=0).reshape([1])
    off = tape.op("ReduceSum", g * (1 - hot), dims=(), keepdims=0).reshape([1])
    return [None, None, tape.join([off, on])]


@dataclass(frozen=True)
class Places:
    """Reads and writes of an operator that scatters.

    Attributes:
        read: elements of a tensor, at the places that are written.
        write: a tensor with updates written, by a reduction.
    """

    read: Callable[[Term], Term]
    write: Callable[[Term, Term, str], Term]


def _places(b: Back) -> Places:
    tape, at, axis = b.tape, b.raw[1], b.attr("axis", 0)
    blank = b.x[2].dims
    if b.node.op_type == "ScatterND":
        rows = at.cast(INT)
        return Places(
            lambda t: tape.op("GatherND", t, rows, dims=blank),
            lambda t, u, how: tape.op("ScatterND", t, rows, u, dims=t.dims, reduction=how),
        )
    return Places(
        lambda t: tape.op("GatherElements", t, at, dims=blank, axis=axis),
        lambda t, u, how: tape.op("ScatterElements", t, at, u, dims=t.dims, axis=axis, reduction=how),
    )


@rule("ScatterND", "ScatterElements", "Scatter")
def _scatter(b: Back) -> Sequence[Gradient]:
    g, how, at = b.g0, b.attr("reduction", "none"), _places(b)
    if how == "none":
        data = at.write(g, b.x[2].zeros(g.kind), "none") if b.needs(0) else None
        return [data, None, at.read(g) if b.needs(2) else None]
    if how == "add":
        return [g, None, at.read(g) if b.needs(2) else None]
    return _multiplied(b, at) if how == "mul" else _compared(b, at)


def _multiplied(b: Back, at: Places) -> Sequence[Gradient]:
    """The product of the others: of those that are not zero, as long as no other is."""
    g, data, updates = b.g0, b.x[0], b.x[2]
    first = at.write(g, updates, "mul") if b.needs(0) else None
    if not b.needs(2):
        return [first]
    zero = updates.equals(0)
    rest = zero.where(1, updates)
    product = at.read(g * at.write(data, rest, "mul"))
    zeros = at.read(at.write(g.zeros(), zero.cast(g.kind), "add"))
    return [first, None, zero.where(zeros.equals(1).where(product, 0), zeros.equals(0).where(product, 0) / rest)]


def _compared(b: Back, at: Places) -> Sequence[Gradient]:
    """The gradient goes to those that are the extreme, in equal shares."""
    g, y = b.g0, b.y[0]
    first, second = b.x[0].equals(y).cast(g.kind), b.x[2].equals(at.read(y)).cast(g.kind)
    many = at.write(first, second, "add")
    share = g * many.equals(0).where(0, 1 / many.equals(0).where(1, many))
    return [first * share, None, second * at.read(share)]
