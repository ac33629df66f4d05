"""Which groups give how much: budgets for the whole model, shared out so that the least is lost.

A ratio, too, is a budget here: so many multiply-accumulates as the same share of every group would leave. Groups of
which little is lost give more of their classes, up to a limit (errors are predicted for each group alone, and
predictions for deep cuts are wrong the most); others give less. How numbers are found stands in ``goals``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.analysis import Analysis, Group, cost
from graphprune.passes.choose import goals, meters, ties
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.goals import Goal, Problem
from graphprune.passes.choose.meters import Meter
from graphprune.passes.choose.ratio import Align, Cause, Chosen, Untouched, counts, lowest, select
from graphprune.passes.choose.widths import Unit, Widths, units
from graphprune.relation import IntArray
from graphprune.rewrite.removal import Removal, Selection
from graphprune.run.moments import FloatArray

MOST = 0.6
"""The largest share of one group that goes, unless the ratio itself is larger."""
_EVEN = 8.0
"""Power of the shares whose sum is small where all are alike: costs that differ twofold move a share by a tenth."""


@dataclass(frozen=True)
class Budget:
    """What a model may cost.

    Attributes:
        kind: what is measured: macs, params, bytes or latency.
        limit: at most so much is left.
        meter: measures it at any widths.
    """

    kind: str
    limit: float
    meter: Callable[[Widths], Meter]


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        budgets: what may be left; all hold.
        most: the largest share of one group that may be gone.
        share: of the classes that there are, about how much will go: it says which groups go together (see ``ties``).
        align: widths that remain are rounded up to a multiple of this; see ``ratio.Align``.
        even: whether groups are to give alike, whatever they lose.
        whole: by group id how many classes it had in the original, where some have gone before.
        alike: by group id a number of classes that meets the budgets, where that is known.
    """

    budgets: Sequence[Budget]
    most: float = MOST
    share: float = 0.5
    align: Align = None
    even: bool = False
    whole: Mapping[str, int] = field(default_factory=dict)
    alike: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Allocated(Chosen):
    """What an allocation came to.

    Attributes:
        worth: what a budget's worth of cost was valued at; None where the budgets cannot be met: as much goes as may.
        left: by kind of budget what the model then costs, as far as widths tell.
    """

    worth: float | None = None
    left: dict[str, float] = field(default_factory=dict)


Improve = Callable[[Problem, Callable[[], Selection]], None]
"""Given a settled problem, and what selects classes by its numbers as they are, it puts better numbers."""


def allocate(
    analysis: Analysis,
    groups: Sequence[Group],
    rankings: Mapping[str, Ranking],
    asked: Asked,
    improve: Improve | None = None,
) -> Allocated:
    """Choose classes of all groups together.

    Args:
        analysis: of the model.
        groups: the groups to prune.
        rankings: by group id.
        asked: what is asked for.
        improve: is asked for better numbers once budgets are met (see ``search``).
    """
    own = units(analysis, groups, asked.share)
    sets = [one for unit in own for one in unit.sets]
    errors = ties.joint(sets, {id: ranking.errors for id, ranking in rankings.items()})
    scores = ties.joint(sets, {id: ranking.scores for id, ranking in rankings.items()})
    widths = Widths(analysis, own, scores)
    numbers = [_numbers(analysis, unit, asked) for unit in own]
    lost = [np.asarray(sum(errors[one.id][free] for one in unit.sets)) for unit, free in zip(own, numbers, strict=True)]
    wanted = [Goal(budget.meter(widths), budget.limit) for budget in asked.budgets]
    if asked.even:
        lost = _even(widths, wanted, numbers, asked.whole)
    problem = Problem(widths, wanted, lost, numbers)
    worth = goals.settle(problem, [asked.alike.get(unit.id, 0) for unit in own] if asked.alike else None)

    def selected() -> Chosen:
        taken = {one.id: count for unit, count in zip(own, widths.numbers, strict=True) for one in unit.sets}
        return lowest(sets, scores, taken)

    if improve is not None and worth:
        improve(problem, lambda: selected().selection)
    chosen = selected()
    left = {budget.kind: goal.meter.total for budget, goal in zip(asked.budgets, wanted, strict=True)}
    why = "what reads it would lose more than what reads others"
    stays = [Untouched(why, group=g.id, cause=Cause.DEAR) for g in groups if g.id not in chosen.selection]
    return Allocated(chosen.selection, stays, worth, left)


def _even(
    widths: Widths, wanted: Sequence[Goal], numbers: Sequence[IntArray], whole: Mapping[str, int]
) -> list[FloatArray]:
    """Errors for which all groups give the same share: a high power of it, times what the group saves."""
    found = []
    for place, (unit, free) in enumerate(zip(widths.units, numbers, strict=True)):
        along = wanted[0].meter.along(place)[free]
        saved = max(float(along[0] - along[-1]), 1.0) / max(float(free[-1]) / unit.size, 1e-9)
        had = whole.get(unit.id, unit.size)
        found.append(saved * ((free + had - unit.size) / had) ** _EVEN)
    total = max(sum(float(one[-1]) for one in found), 1e-30)
    return [one / total for one in found]


def _numbers(analysis: Analysis, unit: Unit, asked: Asked) -> IntArray:
    """How many classes may go: aligned numbers that add no copies, and that which is known to meet the budgets."""
    found: set[int] | None = None
    for one in unit.sets:
        whole = asked.whole.get(one.id, one.size)
        most = min(int(asked.most * whole + 1e-9) - (whole - one.size), unit.most)
        own = {k for k in counts(analysis, one, asked.align) if k <= most and one.pays(k / one.size)}
        found = own if found is None else found & own
    return np.unique([0, *(found or ()), min(asked.alike.get(unit.id, 0), unit.most)])


def even(
    analysis: Analysis,
    groups: Sequence[Group],
    ratio: float,
    align: Align = None,
    whole: Mapping[str, int] | None = None,
) -> tuple[Chosen, Budget]:
    """The same share of every group, and what it leaves as a budget.

    Multiply-accumulates; parameters where the model has no products.
    """
    chosen = select(analysis, groups, {g.id: np.zeros(g.size) for g in groups}, ratio, align, whole)
    return chosen, leaving(analysis, groups, chosen.selection)


def leaving(analysis: Analysis, groups: Sequence[Group], selection: Mapping[str, Sequence[int]]) -> Budget:
    """What a selection leaves, as a budget; classes of one group count alike."""
    if any(g.macs.any() for g in analysis.groups):
        return Budget("macs", cost.macs(analysis, Removal(analysis, selection).sizes()), meters.macs)
    sets = [Unit((ties.of(g),)) for g in groups]
    widths = Widths(analysis, sets, {g.id: np.zeros(g.size) for g in groups})
    widths.numbers[:] = [len(selection.get(unit.id, ())) for unit in sets]
    return Budget("params", meters.parameters(widths).total, meters.parameters)


def needed(analysis: Analysis, groups: Sequence[Group], budgets: Sequence[Budget], whole: Mapping[str, int]) -> float:
    """The share of every group that must be gone for budgets to hold, in twentieths; 1 where they never do.

    Args:
        analysis: of the model.
        groups: the groups to prune.
        budgets: what may be left.
        whole: by group id how many classes it had in the original, where some have gone before.
    """
    own = units(analysis, groups, 0.5)
    widths = Widths(analysis, own, {one.id: np.zeros(one.size) for unit in own for one in unit.sets})
    wanted = [Goal(budget.meter(widths), budget.limit) for budget in budgets]
    problem = Problem(widths, wanted, [], [])
    for step in range(20):
        share = step / 20
        for place, unit in enumerate(own):
            had = whole.get(unit.id, unit.size)
            problem.put(place, max(0, min(int(share * had) - (had - unit.size), unit.most)))
        if problem.holds:
            return share
    return 1.0
