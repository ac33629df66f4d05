"""Products of matrices, and sums of products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import INT, Dims, Term, broadcast


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


@rule("Einsum")
def _einsum(b: Back) -> Sequence[Gradient]:
    """An operand's gradient is a sum of products too: of the result's and the other operands, for its own letters.

    Letters that it alone has are repeated; where it has one twice, only the diagonal has a gradient.
    """
    terms, result = _equation(b)
    found: list[Gradient] = []
    for i, own in enumerate(terms):
        if not b.needs(i):
            found.append(None)
            continue
        others = [(t, x) for k, (t, x) in enumerate(zip(terms, b.x, strict=True)) if k != i]
        told = {*result, *(letter for t, _ in others for letter in t)}
        kept = "".join(letter for letter in dict.fromkeys(own) if letter in told)
        equation = ",".join([result, *(t for t, _ in others)]) + "->" + kept
        g = b.tape.op("Einsum", b.g0, *(x for _, x in others), dims=_sizes(b, terms, kept), equation=equation)
        found.append(_placed(g, kept, own, b.x[i]))
    return found


def _equation(b: Back) -> tuple[list[str], str]:
    """The letters of each operand and of the result, an ellipsis as letters of its own.

    Raises:
        NoGradientError: it is not known how many axes an ellipsis stands for.
    """
    left, arrow, right = b.attr("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [c for c in map(chr, range(65, 123)) if c.isalpha() and c not in left]
    most = 0
    for i, term in enumerate(terms):
        if "..." in term:
            rank = b.x[i].rank
            if rank is None:
                raise NoGradientError("the ranks of its inputs are not known")
            stands = rank - len(term.replace("...", ""))
            most = max(most, stands)
            terms[i] = term.replace("...", "".join(spare[:stands][::-1]))
    every = "".join(spare[:most][::-1])
    if not arrow:
        once = sorted(c for c, n in Counter(left.replace("...", "").replace(",", "")).items() if n == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    return terms, right.replace("...", every)


def _sizes(b: Back, terms: Sequence[str], letters: str) -> Dims:
    """Lengths of the axes of letters, which may be broadcast."""
    found: dict[str, Dims] = {}
    for term, x in zip(terms, b.x, strict=True):
        for letter, size in zip(term, x.dims or [None] * len(term), strict=True):
            found[letter] = broadcast(found.get(letter, (1,)), (size,)) or (None,)
    return tuple(found[letter][0] for letter in letters)


def _placed(g: Term, kept: str, own: str, x: Term) -> Term:
    """A gradient by letters, in the axes that an operand has for them."""
    if kept == own:
        return g.sum_to(x)
    tape, places = g.tape, list(dict.fromkeys(own))
    missing = [k for k, letter in enumerate(places) if letter not in kept]
    g = g.unsqueeze(missing) if missing else g
    for k, letter in enumerate(own):
        first = own.index(letter)
        if k != first:  # the diagonal of two axes
            size = x.size(k).reshape([])
            numbers = tape.op("Range", tape.constant(0), size, tape.constant(1), kind=INT, dims=(None,))
            places.insert(k, letter)
            g = g.unsqueeze([k])
            rank = len(places)
            row, column = (numbers.unsqueeze([a for a in range(rank) if a != axis]) for axis in (first, k))
            g = row.equals(column).where(g, 0)
    spread = tape.op("Expand", g, x.shape())
    return Term(tape, spread.name, g.kind, x.dims) if missing else Term(tape, g.name, g.kind, x.dims)
