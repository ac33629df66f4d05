"""Why: what a selection made of every group, read off what it was settled by, after the fact.

For unit u, of which n classes go, all others as they are,

    saved(n) = (c(0) - c(n)) / c_whole        lost per cent saved = e(n) / (100 saved(n))

with costs c by the budget that binds. Where losses were weighed, lambda was the value of a budget b of cost, so that a
per cent of the whole was worth lambda c_whole / (100 b): a next step that loses more for each per cent stays away
because others are cheaper. One that loses less does where the budgets hold without it: widths go in steps, and what was
taken beyond the budgets is given back (see ``goals``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.allocation import Terms
from graphprune.passes.choose.choices import Choice, Choices, Step, rounded
from graphprune.passes.choose.goals import Goal, Problem
from graphprune.passes.choose.ratio import Cause, Untouched
from graphprune.passes.choose.selection import Request, Selected
from graphprune.passes.choose.ties import Together
from graphprune.passes.choose.widths import Unit, Widths, units
from graphprune.relation import IntArray

_CHEAPER = "its next classes would lose more than those of others"
_FREE = "no more of it makes the budget smaller"
_MET = "what is asked for is met without more of it"
_EVEN = "it gives the same share as others"


@dataclass(frozen=True)
class _Asking:
    """A selection, and what it was settled by."""

    analysis: Analysis
    request: Request
    selected: Selected
    problem: Problem
    base: float
    goal: Goal

    @property
    def terms(self) -> Terms:
        return self.request.asked.terms

    @property
    def weighed(self) -> bool:
        """Whether losses say who gives: not where every group gives its share, or the same one."""
        return bool(self.problem.errors) and self.selected.weighed

    @cached_property
    def stays(self) -> Mapping[str, Untouched]:
        """Why groups stay whole, where each gives its share."""
        return {} if self.problem.errors else {u.group: u for u in self.selected.chosen.untouched}


def choices(
    analysis: Analysis,
    groups: Sequence[Group],
    request: Request,
    selected: Selected,
    left: Sequence[Untouched] = (),
    round: int = 1,
) -> Choices:
    """What a selection made of every group.

    Args:
        analysis: of the model that it was chosen of.
        groups: those that were chosen from.
        request: what was asked for.
        selected: what was chosen.
        left: groups that stayed whole for a reason of their own.
        round: of several cuts; the first is 1.
    """
    problem = _problem(analysis, groups, request, selected)
    goal = max(problem.goals, key=lambda one: one.meter.total / one.budget if one.budget else np.inf)
    asking = _Asking(analysis, request, selected, problem, _base(problem, goal), goal)
    kind = next(b.kind for b, g in zip(request.asked.budgets, problem.goals, strict=True) if g is goal)
    found = [one for place in range(len(problem.widths.units)) for one in _unit(asking, place)]
    found += [_left(analysis, one) for one in left]
    order = {g.id: k for k, g in enumerate(analysis.groups)}
    return Choices(
        round,
        request.criterion,
        tuple(sorted(found, key=lambda one: order[one.id])),
        kind,
        float(asking.base),
        float(goal.budget),
        float(goal.meter.total),
        request.ratio,
        selected.allocated.worth if asking.weighed and selected.allocated is not None else None,
    )


def _problem(analysis: Analysis, groups: Sequence[Group], request: Request, selected: Selected) -> Problem:
    """What was settled; where each group gave its share, the same at these widths, without losses."""
    allocated = selected.allocated
    if allocated is not None and allocated.problem is not None:
        return allocated.problem
    own = units(analysis, groups, request.asked.share)
    widths = Widths(analysis, own, selected.scores)
    widths.put_all([len(selected.chosen.selection.get(unit.id, ())) for unit in own])
    goals = [Goal(budget.meter(widths), budget.limit) for budget in request.asked.budgets]
    return Problem(widths, goals, [], [])


def _base(problem: Problem, goal: Goal) -> float:
    """What the model costs if nothing goes."""
    now = list(problem.widths.numbers)
    problem.put_all([0] * len(now))
    whole = goal.meter.total
    problem.put_all(now)
    return whole


def _left(analysis: Analysis, stays: Untouched) -> Choice:
    group = analysis.group(stays.group)
    assert group is not None
    return Choice(group.id, group.kind, group.size, 0, stays.cause, str(stays), weights=_weights(analysis, group))


def _weights(analysis: Analysis, group: Group) -> dict[str, list[str]]:
    """By the first output of each node what it reads that a group cuts."""
    found: dict[str, list[str]] = {}
    for use, axis in analysis.weights(group):
        node = next(name for name in analysis.model.nodes[use.node].output if name)
        found.setdefault(node, []).append(f"{analysis.root(use)}:{axis}")
    return found


def _unit(asking: _Asking, place: int) -> Iterator[Choice]:
    """What was made of the groups that gave by one number."""
    problem = asking.problem
    unit, number = problem.widths.units[place], problem.widths.numbers[place]
    costs = asking.goal.meter.along(place)
    saved = (costs[0] - costs) / max(asking.base, 1e-30)
    free = _free(asking, unit, place)
    further = free[free > number]
    lost = _lost(asking, place)
    then = int(further[0]) if len(further) else None
    more = lost[then] - lost[number] if then is not None and then in lost else None
    cause, why = _why(asking, place, free)
    for one in unit.sets:
        for group in one.members:
            gone = asking.selected.chosen.selection.get(group.id, [])
            each = unit.step(one)  # how much one class of it counts beside those of the others
            step = (
                None if then is None else Step(then // each, rounded(float(saved[then] - saved[number])), rounded(more))
            )
            short = asking.problem.errors and len(gone) * each < number
            last, first = _scores(asking, one, gone)
            yield Choice(
                group.id,
                group.kind,
                group.size,
                len(gone),
                Cause.EMPTY if short else cause,
                by_ratio.EMPTIED if short else why,
                tuple(other.id for other in one.members if other is not group),
                _weights(asking.analysis, group),
                _asked(asking, one),
                int(free[1]) // each if len(free) > 1 else None,
                int(free[-1]) // each if len(free) > 1 else None,
                rounded(lost.get(number)),
                rounded(float(saved[number])),
                step,
                last,
                first,
            )


def _lost(asking: _Asking, place: int) -> dict[int, float]:
    """What is predicted to be lost for each number that could go of a unit; empty where losses were not weighed."""
    if not asking.weighed:
        return {}
    return dict(zip(asking.problem.numbers[place].tolist(), asking.problem.errors[place].tolist(), strict=True))


def _scores(asking: _Asking, groups: Together, gone: Sequence[int]) -> tuple[float | None, float | None]:
    """Scores of the dearest class that went and of the cheapest that could have gone and stays."""
    scores = asking.selected.scores[groups.id]
    stays = np.ones(len(scores), bool)
    stays[gone] = False
    held = groups.free[stays[groups.free]]
    last = rounded(float(scores[gone].max())) if len(gone) else None
    return last, rounded(float(scores[held].min())) if len(held) else None


def _share(asking: _Asking, groups: Together) -> float | None:
    """The share that is asked of groups; None where it is left open."""
    own = by_ratio.least(groups, asking.terms.own, -1.0)
    return own if own >= 0 else None if asking.problem.errors else asking.request.ratio


def _asked(asking: _Asking, groups: Together) -> int | None:
    share = _share(asking, groups)
    return None if share is None else by_ratio.falls(groups, share, asking.terms.whole)


def _free(asking: _Asking, unit: Unit, place: int) -> IntArray:
    """How many classes could go, ascending from 0: aligned numbers within all bounds."""
    if asking.problem.errors and _share(asking, unit.sets[0]) is None:
        return asking.problem.numbers[place]
    number, bound = asking.problem.widths.numbers[place], _bound(asking, unit)[0]
    return np.asarray(sorted({0, number, *(k for k in _aligned(asking, unit) if k <= bound)}))


def _aligned(asking: _Asking, unit: Unit) -> list[int]:
    """Numbers of classes that leave widths as they are asked for, ascending from 0."""
    own = [(unit.step(one), by_ratio.counts(asking.analysis, one, asking.terms.align)) for one in unit.sets]
    return sorted(set.intersection(*({each * k for k in numbers} for each, numbers in own)))


def _bound(asking: _Asking, unit: Unit) -> tuple[int, Cause, str]:
    """How many classes of a unit may go whatever is asked for, and what says so; the user before others."""
    terms, found = asking.terms, list[tuple[int, Cause, str]]()
    limit = min(by_ratio.least(one, terms.most, one.size) * unit.step(one) for one in unit.sets)
    if limit < unit.most:
        found.append((limit, Cause.LIMIT, f"a limit lets no more than {limit} of its {unit.size} classes go"))
    if asking.problem.errors:
        depth = asking.request.asked.depth
        had = [(one, terms.whole.get(one.id, one.size)) for one in unit.sets]
        most = [(int(depth * size + 1e-9) - (size - one.size)) * unit.step(one) for one, size in had]
        found.append((max(min(most), 0), Cause.DEPTH, f"no more than {100 * depth:g} % of one group goes"))
    return min([*found, (unit.most, Cause.PINNED, _pinned(unit))], key=lambda one: one[0])


def _pinned(unit: Unit) -> str:
    free = min(len(one.free) for one in unit.sets)
    return "one class of it has to stay" if free >= unit.size else f"only {free} of its {unit.size} classes can go"


def _why(asking: _Asking, place: int, free: IntArray) -> tuple[Cause, str]:
    """What keeps what is left of a unit."""
    unit, number = asking.problem.widths.units[place], asking.problem.widths.numbers[place]
    stays = asking.stays.get(unit.id)
    if stays is not None:
        return stays.cause, str(stays)
    share = _share(asking, unit.sets[0])
    if share is not None:
        return _by_share(asking, unit, number, share)
    if number < free[-1]:
        return _cheaper(asking, place) if asking.weighed else (Cause.SHARE, _EVEN)
    bound, cause, why = _bound(asking, unit)
    if number or not bound:
        then = next((k for k in _aligned(asking, unit) if k > number), None)
        passed = number < bound and then is not None
        return cause, f"{why}, and the next width leaves {unit.size - (then or 0)}" if passed else why
    if any(0 < k <= bound for k in _aligned(asking, unit)):
        return Cause.COPIES, by_ratio.COPIED
    return Cause.WIDTH, f"no width from {unit.size - bound} to {unit.size - 1} is a multiple that is asked for"


def _by_share(asking: _Asking, unit: Unit, number: int, share: float) -> tuple[Cause, str]:
    """What keeps what is left of a unit that gives its share."""
    one, own = unit.sets[0], any(g.id in asking.terms.own for g in unit.members)
    wanted = by_ratio.falls(one, share, asking.terms.whole)
    if not share:
        return Cause.ASKED, by_ratio.UNASKED
    if not wanted:
        return Cause.TOO_FEW, f"{share:g} of {asking.terms.whole.get(one.id, one.size)} classes is less than one"
    bound, cause, why = _bound(asking, unit)
    if bound < wanted and cause is Cause.LIMIT:
        return cause, why
    if number < by_ratio.count(asking.analysis, one, wanted, asking.terms.align):
        return Cause.EMPTY, by_ratio.EMPTIED
    if number < wanted:
        return Cause.WIDTH, f"its share is {wanted} classes, and what is left, {one.size - number}, is rounded up"
    return Cause.SHARE, f"{share:g} is {'its own ratio' if own else 'the share of every group'}"


def _cheaper(asking: _Asking, place: int) -> tuple[Cause, str]:
    """Whether the next step of a unit is dearer than others, or only needless."""
    problem, allocated = asking.problem, asking.selected.allocated
    at = int(np.searchsorted(problem.numbers[place], problem.widths.numbers[place]))
    over, errors = problem.over(place), problem.errors[place]
    gain, lost = float(over[at] - over[at + 1]), float(errors[at + 1] - errors[at])
    if gain <= 0:
        return Cause.DEAR, _FREE
    worth = allocated.worth if allocated is not None else None
    if worth is not None and lost <= worth * gain:
        return Cause.MET, _MET
    return Cause.DEAR, _CHEAPER if problem.widths.numbers[place] else by_ratio.DEARER
