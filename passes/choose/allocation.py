"""Allocation: groups are not equal, so of one overall ratio touchy ones give less and redundant ones more.

Chosen are the numbers k_g of classes to remove that minimise

    sum over groups of error_g(k_g) + lambda * macs_g * k_g

with the smallest lambda that leaves at most as many multiply-accumulates as the same share of every group would (a
Lagrangian relaxation, as for bit allocation: Shoham and Gersho, 1988; for pruning ZipLM, Kurtic et al., NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis, Group, cost
from graphprune.passes.choose import ties
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.ratio import (
    Align,
    Cause,
    Chosen,
    Untouched,
    counts,
    going,
    least,
    lowest,
    select,
    usual,
)
from graphprune.passes.choose.ties import Together
from graphprune.rewrite.removal import Removal, Selection

MOST = 0.6
"""The largest share of one group that goes, unless the ratio itself is larger."""
_STEPS = 40


@dataclass(frozen=True)
class Before:
    """What has gone of a model that is cut in rounds.

    Attributes:
        whole: by group id how many classes it had in the original.
        more: multiply-accumulates that are still to go (as :func:`left` counts).
    """

    whole: Mapping[str, int]
    more: float


def allocate(
    analysis: Analysis,
    groups: Sequence[Group],
    rankings: Mapping[str, Ranking],
    ratio: float,
    align: Align = None,
    before: Before | None = None,
    most: Mapping[str, int] | None = None,
    own: Mapping[str, float] | None = None,
) -> Chosen:
    """Choose classes of all groups together.

    Args:
        analysis: of the model.
        groups: the groups to prune.
        rankings: by group id.
        ratio: share of the classes of every group whose removal sets how much is to go.
        align: widths that remain are rounded up to a multiple of this; see ``ratio.Align``.
        before: what has gone in earlier rounds.
        most: by group id how many classes may go at most (see ``steering``).
        own: by group id a ratio of its own: so much goes of it, whatever others lose.

    Raises:
        InputError: the ratio or the alignment is out of range.
    """
    scores = {id: ranking.scores for id, ranking in rankings.items()}
    whole = {} if before is None else before.whole
    uniform = select(analysis, groups, scores, ratio, align, whole, most, own)
    if not uniform.selection and before is None:
        return uniform
    alike = {id: len(classes) for id, classes in uniform.selection.items()}
    sets = ties.together(analysis, groups, going(groups, usual(ratio, own), whole))
    errors = ties.joint(sets, {id: ranking.errors for id, ranking in rankings.items()})
    scores = ties.joint(sets, scores)
    price = _price(analysis, sets)
    free = {}
    for one in sets:
        size, same = whole.get(one.id, one.size), alike.get(one.id, 0)
        cap = min(int(max(MOST, ratio) * size) - (size - one.size), least(one, most, one.size - 1))
        fixed = any(g.id in (own or {}) for g in one.members)
        free[one.id] = np.array([same]) if fixed else _numbers(analysis, one, same, align, cap)
    budget = left(analysis, uniform.selection if before is None else {}) - (0 if before is None else before.more)

    def chosen(factor: float) -> Chosen:
        found = {}
        for one in sets:
            numbers = free[one.id]
            total = errors[one.id][numbers] - factor * price[one.id][numbers]
            found[one.id] = int(numbers[np.argmin(total)])
        return lowest(sets, scores, found)

    low, high = 1e-9, 1e9
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if left(analysis, chosen(middle).selection) <= budget else (middle, high)
    best = chosen(high)
    if left(analysis, best.selection) > budget:
        return uniform
    stayed = {u.group: u for u in uniform.untouched}
    why = "what reads it would lose more than what reads others"
    dear = {g.id: Untouched(why, group=g.id, cause=Cause.DEAR) for g in groups if g.id not in best.selection}
    best.untouched = [stayed.get(id, reason) for id, reason in dear.items()]
    return best


def left(analysis: Analysis, selection: Selection) -> float:
    """Multiply-accumulates that are left; parameters, less all that there are, where the model has no products."""
    if not any(g.macs.any() for g in analysis.groups):
        return -sum(float(g.parameters[list(selection.get(g.id, ()))].sum()) for g in analysis.groups)
    return cost.macs(analysis, Removal(analysis, selection).sizes())


def _price(analysis: Analysis, sets: Sequence[Together]) -> dict[str, np.ndarray]:
    """For each set of groups the share of the model's cost that k classes are worth, k from 0 to all."""
    worth = {one.id: one.macs for one in sets}
    if not any(w.any() for w in worth.values()):
        worth = {one.id: one.parameters for one in sets}
    whole = max(sum(float(w.sum()) for w in worth.values()), 1e-30)
    return {one.id: np.arange(one.size + 1) * float(worth[one.id].mean()) / whole for one in sets}


def _numbers(analysis: Analysis, groups: Together, alike: int, align: Align, most: int) -> np.ndarray:
    """How many classes may go: aligned numbers that add no copies, and that of the same share of every group."""
    most = min(most, len(groups.free), groups.size - 1)
    aligned = (k for k in counts(analysis, groups, align) if k <= most and groups.pays(k / groups.size))
    return np.unique([0, alike, *aligned])
