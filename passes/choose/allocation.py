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
from graphprune.passes.choose import families, goals, meters, ties
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.goals import Goal, Problem
from graphprune.passes.choose.meters import Meter
from graphprune.passes.choose.ratio import (
    DEARER,
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
class Terms:
    """What holds for widths, whatever is asked for.

    Attributes:
        align: widths that remain are rounded up to a multiple of this; see ``ratio.Align``.
        whole: by group id how many classes it had in the original, where some have gone before.
        most: by group id how many classes may go at most (see ``steering``).
        own: by group id a ratio of its own: so much goes of it, whatever others lose.
        uniform_widths: whether layers that repeat keep one width (see ``families``).
    """

    align: Align = None
    whole: Mapping[str, int] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, float] = field(default_factory=dict)
    uniform_widths: bool = False


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        budgets: what may be left; all hold.
        terms: what holds for widths.
        depth: the largest share of one group that may be gone.
        share: of the classes that there are, about how much will go: it says which groups go together (see ``ties``).
        even: whether groups are to give alike, whatever they lose.
        holds: whether the numbers of ``alike`` meet the budgets.
        alike: by group id how many classes go where each gives its share; those with a ratio of their own give no other
            number.
    """

    budgets: Sequence[Budget]
    terms: Terms = field(default_factory=Terms)
    depth: float = MOST
    share: float = 0.5
    even: bool = False
    holds: bool = False
    alike: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Allocated(Chosen):
    """What an allocation came to.

    Attributes:
        worth: what a budget's worth of cost was valued at; None where the budgets cannot be met: as much goes as may.
        left: by kind of budget what the model then costs, as far as widths tell.
        problem: what was settled, with the widths that it came to.
    """

    worth: float | None = None
    left: dict[str, float] = field(default_factory=dict)
    problem: Problem | None = field(default=None, repr=False)

    @property
    def lost(self) -> float:
        """What is foreseen to be lost."""
        return 0.0 if self.problem is None else self.problem.lost


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
    own = (families.units if asked.terms.uniform_widths else units)(analysis, groups, asked.share)
    place = {group.id: k for k, group in enumerate(groups)}
    sets = sorted((one for unit in own for one in unit.sets), key=lambda one: place[one.id])
    errors = ties.joint(sets, {id: ranking.errors for id, ranking in rankings.items()})
    scores = ties.joint(sets, {id: ranking.scores for id, ranking in rankings.items()})
    widths = Widths(analysis, own, scores)
    numbers = [_numbers(analysis, unit, asked) for unit in own]
    lost = [_lost(unit, free, errors) for unit, free in zip(own, numbers, strict=True)]
    wanted = [Goal(budget.meter(widths), budget.limit) for budget in asked.budgets]
    if asked.even:
        lost = _even(widths, wanted, numbers, asked.terms.whole)
    problem = Problem(widths, wanted, lost, numbers)
    worth = goals.settle(problem, [_known(unit, asked) for unit in own] if asked.holds else None)

    def selected() -> Chosen:
        taken = {one.id: n // unit.step(one) for unit, n in zip(own, widths.numbers, strict=True) for one in unit.sets}
        return families.level(own, scores, lowest(sets, scores, taken))

    if improve is not None and worth:
        improve(problem, lambda: selected().selection)
    chosen = selected()
    left = {budget.kind: goal.meter.total for budget, goal in zip(asked.budgets, wanted, strict=True)}
    why = DEARER, Cause.DEAR
    none = "no number of classes may go of all that keep its width", Cause.REPEATS
    alone = {g.id for u, free in zip(own, numbers, strict=True) if len(u.sets) > 1 == len(free) for g in u.members}
    stays = []
    for group in groups:
        text, cause = none if group.id in alone else why
        if group.id not in chosen.selection:
            stays.append(Untouched(text, group=group.id, cause=cause))
    return Allocated(chosen.selection, stays, worth, left, problem)


def _lost(unit: Unit, numbers: IntArray, errors: Mapping[str, FloatArray]) -> FloatArray:
    """What all sets of a unit lose together when so many classes go."""
    return np.asarray(sum(errors[one.id][numbers // unit.step(one)] for one in unit.sets))


def _known(unit: Unit, asked: Asked) -> int:
    """The number that is known to meet the budgets; 0 where none is."""
    return min(asked.alike.get(unit.id, 0) * unit.step(unit.sets[0]), unit.most)


def _had(unit: Unit, whole: Mapping[str, int]) -> int:
    """The size of a unit in the original."""
    return whole.get(unit.id, unit.sets[0].size) * unit.step(unit.sets[0])


def _even(
    widths: Widths, wanted: Sequence[Goal], numbers: Sequence[IntArray], whole: Mapping[str, int]
) -> list[FloatArray]:
    """Errors for which all groups give the same share: a high power of it, times what the group saves."""
    found = []
    for place, (unit, free) in enumerate(zip(widths.units, numbers, strict=True)):
        along = wanted[0].meter.along(place)[free]
        saved = max(float(along[0] - along[-1]), 1.0) / max(float(free[-1]) / unit.size, 1e-9)
        had = _had(unit, whole)
        found.append(saved * ((free + had - unit.size) / had) ** _EVEN)
    total = max(sum(float(one[-1]) for one in found), 1e-30)
    return [one / total for one in found]


def _numbers(analysis: Analysis, unit: Unit, asked: Asked) -> IntArray:
    """How many classes may go: aligned numbers that add no copies, and that of the same share of every group."""
    terms, alike = asked.terms, _known(unit, asked)
    if any(g.id in terms.own for g in unit.members):
        return np.array([alike])
    found: set[int] | None = None
    for one in unit.sets:
        whole, step = terms.whole.get(one.id, one.size), unit.step(one)
        most = min(int(asked.depth * whole + 1e-9) - (whole - one.size), least(one, terms.most, one.size))
        fit = (k for k in counts(analysis, one, terms.align) if k <= most and one.pays(k / one.size))
        own = {k * step for k in fit if k * step <= unit.most}
        found = own if found is None else found & own
    return np.unique([0, *(found or ()), alike])


def even(analysis: Analysis, groups: Sequence[Group], ratio: float, terms: Terms) -> tuple[Chosen, Budget]:
    """The same share of every group, and what it leaves as a budget.

    Multiply-accumulates; parameters where the model has no products.
    """
    zeros = {g.id: np.zeros(g.size) for g in groups}
    chosen = select(analysis, groups, zeros, ratio, terms.align, terms.whole, terms.most, terms.own)
    if terms.uniform_widths:
        share = going(groups, usual(ratio, terms.own), terms.whole)
        chosen = families.level(families.units(analysis, groups, share), zeros, chosen)
    return chosen, leaving(analysis, groups, chosen.selection)


def leaving(analysis: Analysis, groups: Sequence[Group], selection: Mapping[str, Sequence[int]]) -> Budget:
    """What a selection leaves, as a budget; classes of one group count alike."""
    if any(g.macs.any() for g in analysis.groups):
        return Budget("macs", cost.macs(analysis, Removal(analysis, selection).sizes()), meters.macs)
    sets = [Unit((ties.of(g),)) for g in groups]
    widths = Widths(analysis, sets, {g.id: np.zeros(g.size) for g in groups})
    widths.put_all([len(selection.get(unit.id, ())) for unit in sets])
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
            had = _had(unit, whole)
            problem.put(place, max(0, min(int(share * had) - (had - unit.size), unit.most)))
        if problem.holds:
            return share
    return 1.0
