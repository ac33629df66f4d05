"""Goals: numbers of classes that go of each unit, so that costs come down to budgets at the least loss.

With ``e_u(n)`` what is lost when ``n`` classes of unit u go, and ``c_t`` what the model then costs by meter t, of which
at most ``b_t`` may be left,

    minimise  sum_u e_u(n_u) + lambda C(n),    C = (sum_t (c_t / b_t)^p)^(1/p)

for the smallest lambda at which all budgets hold (a Lagrangian relaxation, as for bit allocation: Shoham and Gersho,
1988; for pruning ZipLM, Kurtic et al., NeurIPS 2023). Costs are products of widths, so what a unit saves depends on all
others: for each lambda units are settled in turn, each at its best number with the others as they are, until none
changes (coordinate descent). What was taken beyond the budgets is then given back, where it saves most of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.passes.choose.meters import Meter
from graphprune.passes.choose.widths import Widths
from graphprune.relation import IntArray
from graphprune.run.moments import FloatArray

_NORM = 16.0
"""Of several budgets the one that is furthest from being met counts: a norm so high is all but their maximum."""
_STEPS, _SWEEPS = 40, 12
_CLOSE = 1e-9
"""A cost above its budget by this share is rounding."""
_NEAR, _PAIRED, _FURTHER = 0.99, 64, 4
"""Costs above this share of their budgets are near; pairs of so many units, and steps of one, are looked at."""


@dataclass(frozen=True)
class Goal:
    """What may be left.

    Attributes:
        meter: measures it.
        budget: at most so much.
    """

    meter: Meter
    budget: float


@dataclass(frozen=True)
class Problem:
    """What is to be settled.

    Attributes:
        widths: of all units; they are changed.
        goals: what may be left.
        errors: for each unit what is lost for each number that may go, ascending; shape of ``numbers``.
        numbers: for each unit how many classes may go, ascending.
    """

    widths: Widths
    goals: Sequence[Goal]
    errors: Sequence[FloatArray]
    numbers: Sequence[IntArray]

    def put(self, unit: int, number: int) -> None:
        """So many classes of a unit go."""
        if self.widths.numbers[unit] != number:
            self.widths.put(unit, number)
            for goal in self.goals:
                goal.meter.put(unit)

    def put_all(self, numbers: Sequence[int]) -> None:
        """So many classes of each unit go."""
        for unit, number in enumerate(numbers):
            self.put(unit, number)

    @property
    def lost(self) -> float:
        """What is lost at the numbers of now."""
        places = (np.searchsorted(own, n) for own, n in zip(self.numbers, self.widths.numbers, strict=True))
        return float(sum(own[place] for own, place in zip(self.errors, places, strict=True)))

    @property
    def holds(self) -> bool:
        """Whether nothing is above its budget."""
        return all(goal.meter.total <= goal.budget * (1 + _CLOSE) for goal in self.goals)

    def over(self, unit: int, norm: float = _NORM) -> FloatArray:
        """How far costs are from their budgets for each number of a unit: 1 is what may be; shape of its numbers."""
        shares = np.stack([goal.meter.along(unit)[self.numbers[unit]] / goal.budget for goal in self.goals])
        top = shares.max(0)
        if len(shares) == 1 or np.isinf(norm):
            return np.asarray(top)
        return np.asarray(top * np.sum((shares / top) ** norm, axis=0) ** (1 / norm))


def settle(problem: Problem, start: Sequence[int] | None = None) -> float | None:
    """Find numbers that meet all budgets at little loss; they are those of the widths then.

    Args:
        problem: what is to be settled.
        start: numbers that meet the budgets, to fall back on.

    Returns:
        What a budget's worth of cost was valued at (lambda); None where the most that may go does not meet the budgets:
        the widths are the narrowest that may be then.
    """
    low, high, best = 1e-9, 1e9, None
    problem.put_all([int(own[0]) for own in problem.numbers])
    if problem.holds:
        return 0.0
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        _descend(problem, middle)
        if problem.holds:
            high, best = middle, list(problem.widths.numbers)
        else:
            low = middle
        if high / low < 1 + 1e-4:
            break
    if best is None:
        best = list(start) if start is not None else [int(own[-1]) for own in problem.numbers]
    problem.put_all(best)
    if not problem.holds:
        return None
    give_back(problem)
    draw_near(problem)
    return high


def _descend(problem: Problem, factor: float) -> None:
    """Settle units in turn until none changes."""
    for _ in range(_SWEEPS):
        before = list(problem.widths.numbers)
        for unit, numbers in enumerate(problem.numbers):
            if len(numbers) > 1:
                total = problem.errors[unit] + factor * problem.over(unit)
                problem.put(unit, int(numbers[np.argmin(total)]))
        if problem.widths.numbers == before:
            return


def give_back(problem: Problem) -> None:
    """Let classes stay as long as the budgets hold: first those by which most is lost."""
    open_units = [u for u in range(len(problem.numbers)) if _gives(problem, u)]
    while open_units:
        gains = []
        for unit in open_units:
            place = int(np.searchsorted(problem.numbers[unit], problem.widths.numbers[unit]))
            gain = problem.errors[unit][place] - problem.errors[unit][place - 1]
            gains.append(gain if problem.over(unit, np.inf)[place - 1] <= 1 + _CLOSE else -np.inf)
        best = int(np.argmax(gains))
        if gains[best] == -np.inf:
            return
        unit = open_units[best]
        place = int(np.searchsorted(problem.numbers[unit], problem.widths.numbers[unit]))
        problem.put(unit, int(problem.numbers[unit][place - 1]))
        # what did not fit will not fit later: whatever stays makes the rest dearer
        open_units = [u for u, gain in zip(open_units, gains, strict=True) if gain > -np.inf and _gives(problem, u)]


def _gives(problem: Problem, unit: int) -> bool:
    return problem.widths.numbers[unit] > int(problem.numbers[unit][0])


def draw_near(problem: Problem) -> None:
    """Where steps of widths are coarse, let one unit give a little more, so that another may keep more than that.

    Of all such pairs that come near the budget the one by which least is lost is taken.
    """
    if len(problem.numbers) > _PAIRED or _nearness(problem) > _NEAR:
        return
    now = list(problem.widths.numbers)
    best, least = None, np.inf
    for one, numbers in enumerate(problem.numbers):
        place = int(np.searchsorted(numbers, now[one]))
        for more in range(place + 1, min(place + 1 + _FURTHER, len(numbers))):
            problem.put(one, int(numbers[more]))
            lost = problem.errors[one][more] - problem.errors[one][place]
            for other in range(len(problem.numbers)):
                if other == one:
                    continue
                over = problem.over(other, np.inf)
                changed = (
                    problem.errors[other] - problem.errors[other][np.searchsorted(problem.numbers[other], now[other])]
                )
                total = np.where((over <= 1 + _CLOSE) & (over > _NEAR), lost + changed, np.inf)
                if total.min() < least:
                    least, chosen = float(total.min()), int(np.argmin(total))
                    best = one, int(numbers[more]), other, int(problem.numbers[other][chosen])
            problem.put(one, now[one])
    if best is not None:
        problem.put(best[0], best[1])
        problem.put(best[2], best[3])


def _nearness(problem: Problem) -> float:
    return max(goal.meter.total / goal.budget for goal in problem.goals)
