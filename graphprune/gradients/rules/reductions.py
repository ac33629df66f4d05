"""Sums, means, extremes, and what is normalised by them."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import Term


@rule("Softmax")
def _softmax(b: Back) -> Sequence[Gradient]:
    y, g, axis = b.y[0], b.g0, b.attr("axis", -1)
    return [y * (g - (g * y).sum([axis]))]


@rule("LogSoftmax")
def _log_softmax(b: Back) -> Sequence[Gradient]:
    g, axis = b.g0, b.attr("axis", -1)
    return [g - b.y[0].unary("Exp") * g.sum([axis])]


def reduced(b: Back) -> tuple[Term, Term]:
    """The gradient and the output of a reduction, with the axes that it reduced, of length 1.

    Raises:
        NoGradientError: the axes are computed and do not stay.
    """
    g, y = b.g0, b.y[0]
    if b.attr("keepdims", 1):
        return g, y
    if b.has(1):
        axes = b.raw[1]
    elif b.attr("noop_with_empty_axes", 0):
        return g, y
    elif b.x[0].rank is not None:
        axes = b.tape.constant(list(range(b.x[0].rank)))
    else:
        raise NoGradientError("the rank of its input is not known")
    return b.tape.op("Unsqueeze", g, axes), b.tape.op("Unsqueeze", y, axes)


@rule("ReduceSum", "ReduceMean")
def _sums(b: Back) -> Sequence[Gradient]:
    g, _ = reduced(b)
    if b.node.op_type == "ReduceMean":
        g = g / (b.x[0].count().cast(g.kind) / b.y[0].count().cast(g.kind))
    return [b.tape.op("Expand", g, b.x[0].shape(), dims=b.x[0].dims)]


@rule("GlobalAveragePool")
def _global_average(b: Back) -> Sequence[Gradient]:
    x = b.x[0]
    g = b.g0 / (x.count().cast(b.g0.kind) / b.y[0].count().cast(b.g0.kind))
    return [b.tape.op("Expand", g, x.shape(), dims=x.dims)]
