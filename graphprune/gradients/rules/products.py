"""Products of matrices."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import Term


@rule("MatMul")
def _matmul(b: Back) -> Sequence[Gradient]:
    """Of ``y = a @ b``: ``g @ b.T`` and ``a.T @ g``; vectors are matrices of one row or column."""
    left, right, g = b.x[0], b.x[1], b.g0
    if left.rank is None or right.rank is None:
        raise NoGradientError("the ranks of its inputs are not known")
    a = left.unsqueeze([0]) if left.rank == 1 else left
    c = right.unsqueeze([1]) if right.rank == 1 else right
    if right.rank == 1:
        g = g.unsqueeze([-1])
    if left.rank == 1:
        g = g.unsqueeze([-2])
    one = (g @ c.swapped()).sum_to(a).shaped_as(left) if b.needs(0) else None
    if not b.needs(1):
        return [one, None]
    if c.rank == 2 and a.rank != 2:  # the rows of all matrices at once
        rows, tops = (t.reshape(b.tape.join([b.tape.constant([-1]), t.size(-1)])) for t in (a, g))
        return [one, b.tape.op("Gemm", rows, tops, transA=1).shaped_as(right)]
    return [one, (a.swapped() @ g).sum_to(c).shaped_as(right)]


@rule("Gemm")
def _gemm(b: Back) -> Sequence[Gradient]:
    left, right = b.x[0], b.x[1]
    alpha, beta = b.attr("alpha", 1.0), b.attr("beta", 1.0)
    ta, tb = bool(b.attr("transA", 0)), bool(b.attr("transB", 0))

    def product(p: Term, q: Term, tp: bool, tq: bool) -> Term:
        return b.tape.op("Gemm", p, q, transA=int(tp), transB=int(tq), alpha=alpha)

    first = second = third = None
    if b.needs(0):
        first = product(right, b.g0, tb, True) if ta else product(b.g0, right, False, not tb)
    if b.needs(1):
        second = product(b.g0, left, True, ta) if tb else product(left, b.g0, not ta, False)
    if b.needs(2):
        third = (b.g0 * beta if beta != 1 else b.g0).sum_to(b.x[2])
    return [first, second, third]
