"""Pooling by the largest, and by norms; averages are in resampling, where what is linear is."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.rules.resampling import unpooled
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import INT, Term


@rule("MaxPool")
def _max_pool(b: Back) -> Sequence[Gradient]:
    """All of the gradient goes to the element that the operator names: of equal ones, one."""
    x, tape = b.x[0], b.tape
    held = {n: v for n, v in b.attributes.items() if n != "storage_order"}
    _, places = tape.ops("MaxPool", x, kinds=(None, INT), **held)
    sums = tape.op(
        "ScatterElements",
        x.zeros().reshape([-1]),
        places.reshape([-1]),
        b.g0.reshape([-1]),
        axis=0,
        reduction="add",
    )
    return [sums.shaped_as(x)]


@rule("MaxUnpool")
def _max_unpool(b: Back) -> Sequence[Gradient]:
    """Elements are put where indices of the whole output say."""
    if b.has(2):
        raise NoGradientError("its indices are those of another shape than its output has")
    return [b.g0.reshape([-1]).take(b.raw[1])]


def _spatial(x: Term) -> list[int]:
    if x.rank is None:
        raise NoGradientError("the rank of its input is not known")
    return list(range(2, x.rank))


@rule("GlobalMaxPool")
def _global_max(b: Back) -> Sequence[Gradient]:
    """Equal ones share."""
    wins = b.x[0].equals(b.y[0]).cast(b.g0.kind)
    return [b.g0 / wins.sum(_spatial(b.x[0])) * wins]


@rule("GlobalLpPool")
def _global_norm(b: Back) -> Sequence[Gradient]:
    return [_slope(b.x[0], b.attr("p", 2)) * _scaled(b)]


@rule("LpPool")
def _norm(b: Back) -> Sequence[Gradient]:
    """With the exponent 1, the operator sums."""
    return [_slope(b.x[0], b.attr("p", 2)) * unpooled(b, _scaled(b), p=1)]


def _scaled(b: Back) -> Term:
    """The gradient of the sum of powers, but for the exponent; zero where all is zero."""
    y, power = b.y[0], b.attr("p", 2)
    return b.g0 if power == 1 else (y > 0).where(b.g0 / (y > 0).where(y, 1) ** (power - 1), 0)


def _slope(x: Term, power: int) -> Term:
    """The derivative of ``abs(x) ** p``, but for the exponent."""
    if power == 2:
        return x
    sign = x.unary("Sign")
    return sign if power == 1 else sign * x.unary("Abs") ** (power - 1)


@rule("LRN")
def _lrn(b: Back) -> Sequence[Gradient]:
    """With ``y = x / u ** beta`` and ``u`` a sum of squares over channels nearby.

    Of the window that ``u`` is summed over, the gradient takes the mirror: over an even number of channels, it reaches
    as far in front as the other does behind.
    """
    x, g, size = b.x[0], b.g0, b.attr("size")
    alpha, beta, bias = b.attr("alpha", 1e-4), b.attr("beta", 0.75), b.attr("bias", 1.0)
    rank = len(_spatial(x)) + 2
    front, behind = (size - 1) // 2, size - 1 - (size - 1) // 2

    def near(t: Term, before: int, after: int) -> Term:
        pads = b.tape.constant([0, before, *[0] * (rank - 1), after, *[0] * (rank - 2)])
        long = b.tape.op("Pad", t, pads)
        parts = [long.cut(k, x.size(1) + k, 1) for k in range(size)]
        return Term(b.tape, b.tape.total(parts).name, t.kind, t.dims)

    u = near(x * x, front, behind) * (alpha / size) + bias
    inner = near(g * x * u ** (-beta - 1), behind, front)
    return [g * u**-beta - x * inner * (2 * alpha * beta / size)]
