"""Least squares for what scores lack: the mixture of what stays of one operand that brings products back.

For one head, with x what stays of the queries, y what stays of the keys, and S the scores of the original,

    minimise  sum over samples |x M y^T - S|_F^2 + lambda |M - I|^2

(CORP, arXiv 2602.05243, compensates queries and keys so; without ridge M = (Y'Y kron X'X)^-1 vec(X'S Y), summed over
samples). The norm F is that of what a softmax makes of the scores: to second order in their error e the divergence of
the shares from the original's p is e^T (diag(p) - p p^T) e / 2, which does not see what all keys of a query share, nor
what is masked. Uniform shares of what is not masked in place of p are tried as well; what is held out decides. Where no
softmax is known errors count as they are.

M changes a weight W to W M. Where the rows u that the weight reads are at hand too, x = u W, W itself is fitted in the
same way, towards what it was: then what the scores lost with columns of W that went comes back as well, which no
mixture of x holds. Both are tried.

Conjugate gradients solve it, as M has d^2 elements, and W more: with the inverses of both second moments as
preconditioner, which for scores of one sample would solve it at once, from the largest lambda to the smallest. M may be
one of a family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray

_RIDGES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
"""Lambda beside what a change costs in the mean."""
_STEPS, _ENOUGH = 24, 1e-6
_DAMPED = 1e-3
"""Of the mean diagonal of second moments, in the preconditioner."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Family:
    """Which mixtures there are.

    Attributes:
        free: elements that are mixed with each other; what is neither free nor in a pair stays as it is.
        pairs: elements that are turned and scaled together, ``[pairs, 2]``: as ``[[a, b], [-b, a]]``.
    """

    free: IntArray
    pairs: IntArray

    @classmethod
    def of(cls, classes: IntArray, bound: Mask) -> Family | None:
        """Mixtures within classes of two, and of all that are not bound; None where there are larger classes."""
        sizes = np.bincount(classes)[classes]
        if (sizes > 2).any():
            return None
        order = np.argsort(classes, kind="stable")
        return cls(np.flatnonzero((sizes == 1) & ~bound), order[sizes[order] == 2].reshape(-1, 2))

    def project(self, m: Values) -> Values:
        """The nearest of the family to matrices ``[..., rows, d]``; rows behind the d-th are those of a constant."""
        found = np.zeros_like(m)
        d = m.shape[-1]
        rows = np.concatenate([self.free, np.arange(d, m.shape[-2])])
        found[..., rows[:, None], self.free] = m[..., rows[:, None], self.free]
        i, j = self.pairs.T
        same, turned = (m[..., i, i] + m[..., j, j]) / 2, (m[..., i, j] - m[..., j, i]) / 2
        found[..., i, i] = found[..., j, j] = same
        found[..., i, j], found[..., j, i] = turned, -turned
        return found

    def drawn(self, heads: int, size: int, rng: np.random.Generator) -> FloatArray:
        """Some mixtures of it, ``[heads, size, size]``."""
        return np.eye(size) + self.project(rng.standard_normal((heads, size, size))) / 2


@dataclass(frozen=True)
class Seen:
    """Operands of scores, ``[heads, instances, rows, d]``, and what the scores are to be.

    Attributes:
        x: what is mixed, or what a weight makes it of, the same for all heads then; a column of ones may be behind.
        y: what it is multiplied by.
        wanted: the original's scores, ``[heads, instances, rows of x, rows of y]``.
        shares: of each score among those of its query, None where there is no softmax.
        along: the axis of the keys.
        held: instances that are held out.
    """

    x: Values
    y: Values
    wanted: Values
    shares: Values | None
    along: int
    held: Mask

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.wanted)

    def part(self, which: Mask) -> Seen:
        """Some instances."""
        shares = None if self.shares is None else self.shares[:, which]
        return Seen(self.x[:, which], self.y[:, which], self.wanted[:, which], shares, self.along, self.held[which])

    def even(self) -> Seen:
        """With the same share for all that is not masked."""
        assert self.shares is not None
        there = (self.shares > 0).astype(np.float32)
        return replace(self, shares=there / np.maximum(there.sum(self.along, keepdims=True), 1))

    def scores(self, m: Values) -> Values:
        """The scores of a mixture ``[heads, columns of x, d]``."""
        made: Values = self.made(m) @ self.y.swapaxes(2, 3)
        return made

    def made(self, m: Values) -> Values:
        """The operand that a mixture makes, ``[heads, instances, rows, d]``."""
        m = m.astype(np.float32)
        if len(self.x) == len(m):
            return np.asarray(self.x @ m[:, None])
        flat = self.x.reshape(-1, self.x.shape[3]) @ m.transpose(1, 0, 2).reshape(m.shape[1], -1)
        return np.ascontiguousarray(flat.reshape(*self.x.shape[1:3], len(m), m.shape[2]).transpose(2, 0, 1, 3))

    def weighed(self, error: Values) -> Values:
        """An error times what it counts."""
        if self.shares is None:
            return error
        own = self.shares * error
        return np.asarray(own - self.shares * own.sum(self.along, keepdims=True))

    def back(self, error: Values) -> Values:
        """The transposed of :meth:`scores`."""
        made = error @ self.y
        if len(self.x) == len(made):
            return np.asarray((self.x.swapaxes(2, 3) @ made).sum(1))
        flat = self.x.reshape(-1, self.x.shape[3]).T @ made.transpose(1, 2, 0, 3).reshape(self.x[0, ..., 0].size, -1)
        return np.ascontiguousarray(flat.reshape(-1, len(made), made.shape[3]).transpose(1, 0, 2))

    def error(self, m: Values) -> FloatArray:
        """Squared error of each head."""
        lacks = self.scores(m) - self.wanted
        return np.einsum("hnqk,hnqk->h", lacks, self.weighed(lacks), dtype=np.float64)

    def energy(self) -> FloatArray:
        """Squares of what is wanted, of each head."""
        return np.einsum("hnqk,hnqk->h", self.wanted, self.weighed(self.wanted), dtype=np.float64)


def unmixed(seen: Seen) -> FloatArray:
    """The mixture that changes nothing."""
    return np.repeat(np.eye(seen.x.shape[3], seen.y.shape[3])[None], seen.heads, 0)


Solution = tuple[FloatArray, FloatArray, FloatArray]
"""A matrix for each head, and its squared error on what is held out, before and after."""


def solve(seen: Seen, family: Family) -> Solution:
    """The best mixture of each head on what is held out.

    Args:
        seen: on the calibration inputs.
        family: which mixtures there are.
    """
    return _best(seen, unmixed(seen), family)


def refit(seen: Seen, weight: FloatArray, constant: bool) -> Solution:
    """The best weight of each head on what is held out.

    Args:
        seen: on the calibration inputs, with what the weight reads.
        weight: as it is, ``[heads, columns of x, d]``.
        constant: whether the last column of x is of ones, and the last row of the weight its bias.
    """
    found = _best(seen, weight, None)
    x = seen.made(weight)
    ones = [seen.x[..., -1:]] if constant else []
    mixed = replace(seen, x=np.concatenate([x, *(np.broadcast_to(o, (*x.shape[:3], 1)) for o in ones)], axis=3))
    m, before, after = solve(mixed, Family(np.arange(x.shape[3]), np.zeros((0, 2), np.intp)))
    folded = weight @ m[:, : x.shape[3]]
    if constant:
        folded[:, -1] += m[:, -1]
    better = after < found[2]
    return np.where(better[:, None, None], folded, found[0]), before, np.where(better, after, found[2])


def _best(seen: Seen, first: FloatArray, family: Family | None) -> Solution:
    held, fitting = seen.part(seen.held), seen.part(~seen.held)
    best = first.copy()
    before = held.error(best)
    least = before.copy()
    for own in [fitting] if seen.shares is None else [fitting, fitting.even()]:
        for m in _path(own, first, family):
            found = held.error(m)
            better = found < least
            least[better], best[better] = found[better], m[better]
    return best, before, least


def _path(seen: Seen, first: FloatArray, family: Family | None) -> Iterator[FloatArray]:
    """The solutions for each lambda."""

    def project(m: Values) -> Values:
        return m if family is None else family.project(m)

    start = first.astype(np.float32)
    rest = project(seen.back(seen.weighed(seen.wanted - seen.scores(start))))
    drawn = project(np.random.default_rng(0).standard_normal(start.shape, np.float32))
    norm = np.maximum(np.square(drawn).sum((1, 2)), 1e-30)
    scale = np.einsum("hij,hij->h", drawn, seen.back(seen.weighed(seen.scores(drawn)))) / norm
    left, right = _inverse(seen.x, None), _inverse(seen.y, seen.along if seen.shares is not None else None)
    change = np.zeros_like(rest)
    for ridge in _RIDGES:
        change = _descend(seen, project, ridge * scale[:, None, None] + 1e-12, (left, right), rest, change)
        yield np.asarray(first + change, np.float64)


def _inverse(x: Values, along: int | None) -> Values:
    """Inverse second moments of each head; about the mean of each instance where all keys may move alike."""
    seen = x - x.mean(2, keepdims=True) if along == -1 else x
    gram = np.einsum("hnri,hnrj->hij", seen, seen, dtype=np.float64, optimize=True)
    mean = np.einsum("hii->h", gram) / gram.shape[1]
    eye = np.eye(gram.shape[1])
    scaled = gram / np.maximum(mean, 1e-30)[:, None, None]
    return np.linalg.inv(scaled + _DAMPED * eye).astype(np.float32)


def _descend(
    seen: Seen,
    project: Callable[[Values], Values],
    ridge: Values,
    inverses: tuple[Values, Values],
    wanted: Values,
    start: Values,
) -> Values:
    """Conjugate gradients in a family; heads that are solved wait."""

    def product(m: Values) -> Values:
        return project(seen.back(seen.weighed(seen.scores(m)))) + ridge * m

    def conditioned(residual: Values) -> Values:
        return project(inverses[0] @ residual @ inverses[1])

    def dot(a: Values, b: Values) -> Values:
        return np.einsum("hij,hij->h", a, b, dtype=np.float64)

    x, residual = start.copy(), wanted - product(start)
    step = conditioned(residual)
    energy = dot(residual, step)
    enough = _ENOUGH * dot(wanted, conditioned(wanted))
    for _ in range(_STEPS):
        going = energy > enough
        if not going.any():
            break
        made = product(step)
        curve = dot(step, made)
        length = np.divide(energy, curve, out=np.zeros_like(energy), where=going & (curve > 0))[:, None, None]
        x = (x + length * step).astype(np.float32)
        residual = (residual - length * made).astype(np.float32)
        turned = conditioned(residual)
        fresh = dot(residual, turned)
        again = np.divide(fresh, energy, out=np.zeros_like(energy), where=going & (energy > 0))[:, None, None]
        step, energy = (turned + again * step).astype(np.float32), fresh
    return x
