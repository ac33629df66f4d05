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
from typing import Protocol

import numpy as np

from graphprune.analysis import Group
from graphprune.analysis.contractions import Contraction
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray
from graphprune.run.moments import FloatArray

RIDGE = 1e-4
"""Added to the diagonal of H, beside its mean."""
ROUNDS = 64
"""Blocks in which classes go; scores are new after each."""


class _State(Protocol):
    """One contraction, with some of its rows gone."""

    def lost(self, size: int) -> FloatArray:
        """For each class the error that its removal would add; shape ``[size]``."""

    def remove(self, gone: np.ndarray) -> float:
        """Remove classes, marked in ``[size + 1]`` (the last entry stands for no class); returns the error added."""


class _Adjusted:
    """A product whose weights make up for what goes."""

    def __init__(self, contraction: Contraction, labels: IntArray) -> None:
        gram, self.weight, self.labels = contraction.gram, contraction.matrix, labels
        variance = float(np.einsum("gio,gio->", self.weight, gram @ self.weight))
        self.scale = 1 / variance if variance > 0 else 0.0
        self.inverse = np.linalg.inv(damped(gram))

    def lost(self, size: int) -> FloatArray:
        found = np.zeros(size)
        for classes, rows in _by_count(self.labels):
            own = self.weight[:, rows]
            blocks = self.inverse[:, rows[:, :, None], rows[:, None, :]]
            found[classes] += np.einsum("gnro,gnro->n", own, np.linalg.solve(blocks, own))
        return self.scale * found

    def remove(self, gone: np.ndarray) -> float:
        away, kept = np.flatnonzero(gone[self.labels]), np.flatnonzero(~gone[self.labels])
        if not len(away):
            return 0.0
        own, across = self.weight[:, away], self.inverse[:, kept[:, None], away]
        both = np.concatenate([own, across.transpose(0, 2, 1)], axis=2)
        solved = np.linalg.solve(self.inverse[:, away[:, None], away], both)
        outputs = own.shape[2]
        error = float(np.einsum("gro,gro->", own, solved[:, :, :outputs]))
        self.weight = self.weight[:, kept] - across @ solved[:, :, :outputs]
        self.inverse = self.inverse[:, kept[:, None], kept] - across @ solved[:, :, outputs:]
        self.labels = self.labels[kept]
        return self.scale * error


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
        across = gram[np.ix_(kept, rows)] @ matrix[rows] / mean
        own[kept] = np.linalg.solve(inside, across.astype(np.float32))
    return np.asarray(found, np.float64)


def score(group: Group, contractions: Sequence[Contraction]) -> FloatArray:
    """Score the classes of one group.

    Args:
        group: the group.
        contractions: all contractions over it.

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
    while len(alive):
        lost = sum((state.lost(group.size) for state in states), np.zeros(group.size))
        chosen = alive[np.argsort(lost[alive], kind="stable")[:step]]
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
    progress: Steps = unseen,
) -> dict[str, FloatArray]:
    """Score many groups.

    Args:
        groups: the groups.
        contractions: of the model.
        otherwise: scores a group that nothing in these sums over.
        progress: is told after each group how many of how many are done.
    """
    found = {}
    for number, group in enumerate(groups):
        own = [c for c in contractions if c.summed.touches(group.labels)]
        found[group.id] = score(group, own) if own else otherwise(group)
        progress(number + 1, len(groups))
    return found
