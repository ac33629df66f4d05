"""Scores by the Optimal Brain Surgeon, for structures: what is lost once what stays has made up for what goes.

A class owns rows S of every contraction over its group (see ``graphprune.analysis.contractions``). With H the second
moments of what a contraction sums and W the weights, the best that the others can do when S goes leaves the error

    tr(W_S^T (H^-1)_SS^-1 W_S),    by    W - (H^-1)_:S (H^-1)_SS^-1 W_S

(Hassibi and Stork, NIPS 1992; for structures OBC, Frantar and Alistarh, NeurIPS 2022, and ZipLM, Kurtic et al., NeurIPS
2023). The errors of all contractions over a group are added up, each beside the variance of what it makes. Classes go
greedily, the cheapest first, a block at a time; H^-1 loses their rows by block elimination.

Products of activations have no weights to adjust: of them the error is what goes, ``1_S^T H_SS 1_S``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from graphprune.analysis import Group
from graphprune.analysis.contractions import Contraction
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray
from graphprune.run.positive import LARGE, inverse, solve

RIDGE = 1e-4
"""Added to the diagonal of H, beside its mean."""
ROUNDS = 64
"""Blocks in which classes go; scores are new after each."""
_TINY = 1e-30


class _State(Protocol):
    """One contraction, with some of its rows gone."""

    def lost(self, size: int) -> FloatArray:
        """For each class the error that its removal would add; shape ``[size]``."""

    def remove(self, gone: np.ndarray) -> float:
        """Remove classes, marked in ``[size + 1]`` (the last entry stands for no class); returns the error added."""


class _Adjusted:
    """A product whose weights make up for what goes.

    H^-1 is made once. What block elimination takes off it is kept as a product ``U^T U``, of which only what is looked
    at is ever multiplied out: the blocks of the classes, and the columns of those that go.
    """

    def __init__(self, contraction: Contraction, labels: IntArray) -> None:
        self.inverse, self.labels = _inverse(contraction.gram), labels
        self.weight = contraction.matrix.astype(self.inverse.dtype)
        made = contraction.gram.astype(self.weight.dtype) @ self.weight
        variance = float(np.einsum("gio,gio->", self.weight, made))
        self.scale = 1 / variance if variance > 0 else 0.0
        self.factor, self.used = np.empty_like(self.inverse), 0
        self.members = list(_by_count(labels))
        self.blocks = [self.inverse[:, rows[:, :, None], rows[:, None, :]] for _, rows in self.members]
        self.gone = np.zeros(len(labels), bool)

    def lost(self, size: int) -> FloatArray:
        found = np.zeros(size)
        for (classes, rows), blocks in zip(self.members, self.blocks, strict=True):
            there = np.flatnonzero(~self.gone[rows[:, 0]])
            own = self.weight[:, rows[there]]
            if rows.shape[1] == 1:
                left = np.einsum("gnro,gnro->gn", own, own) / np.maximum(blocks[:, there, 0, 0], _TINY)
            else:
                apart = blocks[:, there] + _TINY * np.eye(rows.shape[1], dtype=blocks.dtype)  # none is exactly singular
                left = np.einsum("gnrs,gnrs->gn", np.linalg.inv(apart), own @ own.swapaxes(2, 3))
            found[classes[there]] += left.sum(0)
        return self.scale * found

    def remove(self, gone: np.ndarray) -> float:
        away = np.flatnonzero(gone[self.labels] & ~self.gone)
        if not len(away):
            return 0.0
        before = self.factor[:, : self.used]
        across = self.inverse[:, away] - before[:, :, away].swapaxes(1, 2) @ before
        root = np.linalg.inv(_root(across[:, :, away]))
        step, own = root @ across, root @ self.weight[:, away]
        self.weight -= step.swapaxes(1, 2) @ own
        turned = np.ascontiguousarray(step.swapaxes(1, 2))
        for (_, rows), blocks in zip(self.members, self.blocks, strict=True):
            part = turned[:, rows]
            blocks -= part @ part.swapaxes(2, 3)
        self.factor[:, self.used : self.used + len(away)] = step
        self.used += len(away)
        self.gone[away] = True
        return self.scale * float(np.einsum("gro,gro->", own, own))


def _inverse(gram: FloatArray) -> Values:
    """The inverse of second moments, damped by more where rounding would leave them indefinite."""
    single = gram.shape[1] > LARGE
    for ridge in (10 * RIDGE, 100 * RIDGE, 1e4 * RIDGE) if single else (RIDGE, 10 * RIDGE, 100 * RIDGE, 1e4 * RIDGE):
        with suppress(np.linalg.LinAlgError):
            return inverse(damped(gram, ridge).astype(np.float32 if single else np.float64))
    return np.broadcast_to(np.eye(gram.shape[1]), gram.shape).copy()  # what overflowed says nothing


def _root(matrix: Values) -> Values:
    """The Cholesky factor of what is positive definite but for rounding."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        least = np.maximum(1e-6 * values.max(-1, keepdims=True), _TINY)
        return np.asarray(vectors * np.sqrt(np.maximum(values, least))[:, None, :])


class _Fixed:
    """A product of activations: nothing makes up for what goes."""

    def __init__(self, contraction: Contraction, labels: IntArray) -> None:
        self.gram, self.labels = contraction.gram.sum(0), labels
        total = float(self.gram.sum())
        self.scale = 1 / total if total > 0 else 0.0
        self.gone = np.zeros(len(labels), bool)

    def lost(self, size: int) -> FloatArray:
        found = np.zeros(size)
        before = self.gram[:, self.gone].sum(1)
        for classes, rows in _by_count(np.where(self.gone, -1, self.labels)):
            inside = self.gram[rows[:, :, None], rows[:, None, :]].sum((1, 2))
            found[classes] += inside + 2 * before[rows].sum(1)
        return self.scale * found

    def remove(self, gone: np.ndarray) -> float:
        away = gone[self.labels] & ~self.gone
        error = self.gram[np.ix_(away, away)].sum() + 2 * self.gram[np.ix_(away, self.gone)].sum()
        self.gone |= away
        return self.scale * float(error)


def _by_count(labels: IntArray) -> Iterable[tuple[IntArray, IntArray]]:
    """Classes and their rows ``[classes, rows of each]``, those with equally many together."""
    order = np.argsort(labels, kind="stable")
    classes, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    for count in np.unique(counts[classes >= 0]):
        alike = (counts == count) & (classes >= 0)
        yield classes[alike], order[first[alike][:, None] + np.arange(count)]


def damped(gram: FloatArray, ridge: float = RIDGE) -> FloatArray:
    """Second moments ``[groups, sums, sums]`` that have an inverse."""
    rows = gram.shape[1]
    damping = ridge * np.einsum("gii->g", gram) / rows + 1e-12
    return np.asarray(gram + damping[:, None, None] * np.eye(rows), np.float64)


def change(contraction: Contraction, rows: IntArray) -> FloatArray:
    """How weights change when some rows go and the others make up for them by least squares, shape of the matrix.

    Single precision will do for the estimates that are made of it, in half the time.
    """
    found = -contraction.matrix
    kept = np.setdiff1d(np.arange(found.shape[1]), rows)
    found[:, kept] = 0
    for gram, matrix, own in zip(contraction.gram, contraction.matrix, found, strict=True):
        mean = max(float(np.trace(gram)) / len(gram), 1e-30)
        inside = (gram[np.ix_(kept, kept)] / mean).astype(np.float32)
        inside[np.diag_indices_from(inside)] += np.float32(RIDGE)
        across = (gram[np.ix_(kept, rows)] @ matrix[rows] / mean).astype(np.float32)
        own[kept] = _solved(inside, across)
    return np.asarray(found, np.float64)


def _solved(matrix: Values, wanted: Values) -> Values:
    """What a matrix makes into what is wanted; where rounding leaves it no inverse, the least that comes nearest."""
    with suppress(np.linalg.LinAlgError):
        return solve(matrix, wanted)
    with suppress(np.linalg.LinAlgError):
        return np.asarray(np.linalg.solve(matrix, wanted))
    return np.asarray(np.linalg.lstsq(matrix, wanted, rcond=None)[0])


def score(group: Group, contractions: Sequence[Contraction], most: float = 1.0) -> FloatArray:
    """Score the classes of one group.

    Args:
        group: the group.
        contractions: all contractions over it.
        most: the share of the classes that may go; the others are scored as if all went at once behind these.

    Returns:
        For each class the error once it and all classes with lower scores are gone, as a share of the variance of what
        the contractions make, summed over them; shape ``[classes]``. Infinite where a class is pinned.
    """
    states: list[_State] = [
        (_Adjusted if c.adjustable else _Fixed)(c, labels)
        for c in contractions
        if (labels := c.labels(group)) is not None
    ]
    scores = np.full(group.size, np.inf)
    alive = np.flatnonzero(~group.pinned)
    step, error = max(1, group.size // ROUNDS), 0.0
    enough = len(alive) - int(most * group.size)
    while len(alive):
        lost = sum((state.lost(group.size) for state in states), np.zeros(group.size))
        rest = len(alive) <= enough
        chosen = alive[np.argsort(lost[alive], kind="stable")[: None if rest else step]]
        if rest:
            scores[chosen] = error + np.cumsum(np.maximum(lost[chosen], 0.0) + 1e-15)
            break
        gone = np.zeros(group.size + 1, bool)
        gone[chosen] = True
        added = max(sum(state.remove(gone) for state in states), 0.0)
        shares = np.cumsum(np.maximum(lost[chosen], 0.0) + 1e-15)  # of one block the cheaper stay the cheaper
        scores[chosen] = error + added * shares / shares[-1]
        error += added
        alive = alive[~gone[alive]]
    return scores


def score_all(
    groups: Sequence[Group],
    contractions: Sequence[Contraction],
    otherwise: Callable[[Group], FloatArray],
    most: float = 1.0,
    progress: Steps = unseen,
) -> dict[str, FloatArray]:
    """Score many groups.

    Args:
        groups: the groups.
        contractions: of the model.
        otherwise: scores a group that nothing in these sums over.
        most: the share of the classes of a group that may go.
        progress: is told after each group how many of how many are done.
    """
    found = {}
    for number, group in enumerate(groups):
        own = [c for c in contractions if c.summed.touches(group.labels)]
        found[group.id] = score(group, own, most) if own else otherwise(group)
        progress(number + 1, len(groups))
    return found
