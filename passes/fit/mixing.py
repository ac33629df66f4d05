"""Least squares for what scores lack: the mixture of what stays of one operand that brings products back.

For one head, with x what stays of the queries, y what stays of the keys, and S the scores of the original,

    minimise  sum over samples |x M y^T - S|_F^2 + lambda |M - I|^2

(CORP, arXiv 2602.05243, compensates queries and keys so; without ridge M = (Y'Y kron X'X)^-1 vec(X'S Y), summed over
samples). The norm F is that of what a softmax makes of the scores: to second order in their error e the divergence of
the shares from the original's p is e^T (diag(p) - p p^T) e / 2, which does not see what all keys of a query share, nor
what is masked. Uniform shares of what is not masked in place of p are tried as well; what is held out decides. Where no
softmax is known errors count as they are.

Conjugate gradients solve it, as M has d^2 elements: with the inverses of both second moments as preconditioner, which
for scores of one sample would solve it at once, from the largest lambda to the smallest. M may be one of a family.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray

_RIDGES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
"""Lambda beside the mean of what M = I costs."""
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
        x: what is mixed; it may have a column of ones behind.
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
        made: Values = (self.x @ m.astype(np.float32)[:, None]) @ self.y.swapaxes(2, 3)
        return made

    def weighed(self, error: Values) -> Values:
        """An error times what it counts."""
        if self.shares is None:
            return error
        own = self.shares * error
        return np.asarray(own - self.shares * own.sum(self.along, keepdims=True))

    def back(self, error: Values) -> Values:
        """The transposed of :meth:`scores`."""
        made: Values = (self.x.swapaxes(2, 3) @ error @ self.y).sum(1)
        return made

    def error(self, m: Values) -> FloatArray:
        """Squared error of each head."""
        lacks = self.scores(m) - self.wanted
        return np.einsum("hnqk,hnqk->h", lacks, self.weighed(lacks), dtype=np.float64)

    def energy(self) -> FloatArray:
        """Squares of what is wanted, of each head."""
        return np.einsum("hnqk,hnqk->h", self.wanted, self.weighed(self.wanted), dtype=np.float64)


def unmixed(seen: Seen) -> FloatArray:
    """The mixture that changes nothing."""
    return np.repeat(np.eye(seen.x.shape[3], seen.y.shape[3])[None], len(seen.x), 0)


def solve(seen: Seen, family: Family) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The best mixture of each head on what is held out: its matrix, and the squared errors before and after.

    Args:
        seen: on the calibration inputs.
        family: which mixtures there are.
    """
    held = seen.part(seen.held)
    best = unmixed(seen)
    before = held.error(best)
    least = before.copy()
    fitting = seen.part(~seen.held)
    for own in [fitting] if seen.shares is None else [fitting, fitting.even()]:
        for m in _path(own, family):
            found = held.error(m)
            better = found < least
            least[better], best[better] = found[better], m[better]
    return best, before, least


def _path(seen: Seen, family: Family) -> list[FloatArray]:
    """The solutions for each lambda."""
    first = unmixed(seen).astype(np.float32)
    rest = family.project(seen.back(seen.weighed(seen.wanted - seen.scores(first))))
    kept = family.project(first)
    norm = np.maximum(np.square(kept).sum((1, 2)), 1)
    scale = np.einsum("hij,hij->h", kept, seen.back(seen.weighed(seen.scores(kept)))) / norm
    left, right = _inverse(seen.x, None), _inverse(seen.y, seen.along if seen.shares is not None else None)
    change, found = np.zeros_like(rest), []
    for ridge in _RIDGES:
        change = _descend(seen, family, ridge * scale[:, None, None] + 1e-12, (left, right), rest, change)
        found.append(np.asarray(first + change, np.float64))
    return found


def _inverse(x: Values, along: int | None) -> Values:
    """Inverse second moments of each head; about the mean of each instance where all keys may move alike."""
    seen = x - x.mean(2, keepdims=True) if along == -1 else x
    gram = np.einsum("hnri,hnrj->hij", seen, seen, dtype=np.float64, optimize=True)
    mean = np.einsum("hii->h", gram) / gram.shape[1]
    eye = np.eye(gram.shape[1])
    scaled = gram / np.maximum(mean, 1e-30)[:, None, None]
    return np.linalg.inv(scaled + _DAMPED * eye).astype(np.float32)


def _descend(
    seen: Seen, family: Family, ridge: Values, inverses: tuple[Values, Values], wanted: Values, start: Values
) -> Values:
    """Conjugate gradients in a family; heads that are solved wait."""

    def product(m: Values) -> Values:
        return family.project(seen.back(seen.weighed(seen.scores(m)))) + ridge * m

    def conditioned(residual: Values) -> Values:
        return family.project(inverses[0] @ residual @ inverses[1])

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
