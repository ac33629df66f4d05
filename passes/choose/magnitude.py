"""Scores by magnitude.

The score of a class is the L2 norm of all the weights that it owns, in every tensor that its group touches, as in
group-level pruning of coupled parameters (DepGraph, Fang et al., CVPR 2023, section 3.3), divided by the mean over the
group's classes, so that 1 is average.

Only weights that multiply an activation count (those of convolutions and matrix products), where the group has any: a
running variance says nothing about how much a channel matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis, Group
from graphprune.model import Use

Scores = dict[str, npt.NDArray[np.float64]]


def score(analysis: Analysis, groups: Iterable[Group]) -> Scores:
    """Score the classes of groups.

    Args:
        analysis: of the model.
        groups: the groups to score.

    Returns:
        For each group id an array of shape ``[classes]``; higher is more important.
    """
    wanted = list(groups)
    by_root: dict[str, list[tuple[Group, Use, int]]] = {}
    for group in wanted:
        for use, axis in counting(analysis, group):
            by_root.setdefault(analysis.root(use), []).append((group, use, axis))
    sums: Scores = {g.id: np.zeros(g.size) for g in wanted}
    for root, entries in by_root.items():  # each constant is read once, whatever the number of its groups
        array = analysis.model.array(root)
        if array.dtype.kind in "biu":
            continue
        marginals: dict[int, npt.NDArray[np.float64]] = {}
        seen: set[tuple[str, int]] = set()
        for group, use, axis in entries:
            if (group.id, axis) in seen:
                continue
            seen.add((group.id, axis))
            if axis not in marginals:
                marginals[axis] = _squares(array, axis)
            labels = group.labels[analysis.web.axis_of[use] + axis]
            held = labels >= 0
            sums[group.id] += np.bincount(labels[held], marginals[axis][held], minlength=group.size)
    return {id: _normalised(np.sqrt(total)) for id, total in sums.items()}


def counting(analysis: Analysis, group: Group) -> list[tuple[Use, int]]:
    """Weights of a group that count: those that multiply an activation, where it has any, each with its axis."""
    weights = analysis.weights(group)
    return [(u, a) for u, a in weights if _multiplies(analysis, u)] or weights


def _squares(array: npt.NDArray[np.generic], axis: int) -> npt.NDArray[np.float64]:
    """Sum of squares over all other axes, in float32 steps without a whole copy in float64."""
    moved: npt.NDArray[Any] = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    if moved.dtype not in (np.float32, np.float64):
        moved = moved.astype(np.float32)
    return np.einsum("ij,ij->i", moved, moved).astype(np.float64)


def _multiplies(analysis: Analysis, use: Use) -> bool:
    relation = analysis.web.relations[use.node]
    if relation is None or not relation.macs:
        return False
    axes = relation.inputs[use.input] or ()
    return sum(bool(a.dims) for a in axes) > 1


_BROKEN = 1e30
"""The score of a class whose weights are no numbers, or too large to be squared: it goes last."""


def _normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    finite = np.isfinite(values)
    mean = values[finite].mean() if finite.any() else 0.0
    return np.where(finite, values / mean if mean > 0 else values, _BROKEN)
