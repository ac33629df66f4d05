"""Sums, means, extremes, and what is normalised by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import BOOL, Term


@rule("Softmax")
def _softmax(b: Back) -> Sequence[Gradient]:
    y, g, axis = b.y[0], b.g0, b.attr("axis", -1)
    dx = y * (g - (g * y).sum([axis]))
    return [(y > 0).where(dx, 0) if b.known.replaces_nan else dx]


@rule("LogSoftmax")
def _log_softmax(b: Back) -> Sequence[Gradient]:
    g, axis = b.g0, b.attr("axis", -1)
    return [g - b.y[0].unary("Exp") * g.sum([axis])]


@rule("LpNormalization")
def _lp_normalization(b: Back) -> Sequence[Gradient]:
    x, y, g, axis = b.x[0], b.y[0], b.g0, [b.attr("axis", -1)]
    absolute = b.attr("p", 2) == 1
    side = x.unary("Sign") if absolute else y
    norm = x.unary("Abs").sum(axis) if absolute else (x * x).sum(axis).unary("Sqrt")
    return [(g - side * (g * y).sum(axis)) * inverse(norm)]


@rule("CumSum")
def _cumulative(b: Back) -> Sequence[Gradient]:
    """Summed from the other end."""
    back = int(not b.attr("reverse", 0))
    return [b.tape.op("CumSum", b.g0, b.raw[1], dims=b.x[0].dims, exclusive=b.attr("exclusive", 0), reverse=back)]


def inverse(x: Term) -> Term:
    """``1 / x``, zero where ``x`` is zero."""
    zero = x.equals(0)
    return zero.where(0, 1 / zero.where(1, x))


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
    if axes.value is not None and axes.value.size:
        places = [int(a) for a in axes.value]
        return g.unsqueeze(places), y.unsqueeze(places)
    if axes.value is not None:  # none are named: all of them, or none
        kept = b.attr("noop_with_empty_axes", 0)
        return (g, y) if kept else (g.reshape([1] * (b.x[0].rank or 0)), y.reshape([1] * (b.x[0].rank or 0)))
    return b.tape.op("Unsqueeze", g, axes), b.tape.op("Unsqueeze", y, axes)


def over(b: Back, term: Term, op: str = "ReduceSum") -> Term:
    """A tensor of the input's shape, reduced over the axes of a reduction, which stay with length 1."""
    axes = b.raw[1] if b.has(1) else None
    dims = b.y[0].dims if b.attr("keepdims", 1) else None
    return b.tape.op(op, term, axes, dims=dims, keepdims=1, noop_with_empty_axes=b.attr("noop_with_empty_axes", 0))


@rule("ReduceSum", "ReduceMean")
def _sums(b: Back) -> Sequence[Gradient]:
    g, _ = reduced(b)
    if b.node.op_type == "ReduceMean":
        g = g * share(b)
    return [b.tape.op("Expand", g, b.x[0].shape(), dims=b.x[0].dims)]


def share(b: Back) -> Term:
    """One by the number of elements of the input that make an element of the output."""
    kind, whole, part = b.g0.kind, b.x[0].count(), b.y[0].count()
    if whole.value is not None and part.value is not None:
        return b.g0.like(float(part.value) / max(float(whole.value), 1.0))
    return part.cast(kind) / whole.cast(kind)


@rule("GlobalAveragePool")
def _global_average(b: Back) -> Sequence[Gradient]:
    x = b.x[0]
    return [b.tape.op("Expand", b.g0 * share(b), x.shape(), dims=x.dims)]


def _by_value(table: Mapping[str, Callable[[Back, Term, Term, Term], Term]]) -> None:
    """Enter reductions whose gradient is a function of ``g``, ``x`` and ``y``, spread over the axes."""
    for op, derivative in table.items():

        def back(b: Back, derivative: Callable[..., Term] = derivative) -> Sequence[Gradient]:
            g, y = reduced(b)
            return [derivative(b, g, b.x[0], y)]

        rule(op)(back)


_by_value(
    {
        "ReduceL1": lambda b, g, x, y: g * x.unary("Sign"),
        "ReduceL2": lambda b, g, x, y: g * inverse(y) * x,
        "ReduceLogSum": lambda b, g, x, y: g / over(b, x) + x.zeros(),
        "ReduceLogSumExp": lambda b, g, x, y: g * (x - y.unary("IsInf", BOOL).where(0, y)).unary("Exp"),
        "ReduceMax": lambda b, g, x, y: _extreme(b, g, x, y),
        "ReduceMin": lambda b, g, x, y: _extreme(b, g, x, y),
        "ReduceProd": lambda b, g, x, y: _product(b, g, x),
        "ReduceSumSquare": lambda b, g, x, y: g * 2 * x,
    }
)


def _extreme(b: Back, g: Term, x: Term, y: Term) -> Term:
    """The gradient goes to those that are the extreme, in equal shares."""
    wins = x.equals(y).cast(g.kind)
    return wins * (g / over(b, wins))


def _product(b: Back, g: Term, x: Term) -> Term:
    """The product of the others: of those that are not zero, as long as no other is."""
    zero = x.equals(0)
    rest = zero.where(1, x)
    product, zeros = over(b, rest, "ReduceProd"), over(b, zero.cast(x.kind))
    return zero.where(zeros.equals(1).where(g * product, 0), zeros.equals(0).where(g * product, 0) / rest)
