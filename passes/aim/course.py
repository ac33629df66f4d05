"""The course of a job that aims at targets: what may be left now, what was tried, and how close it came.

A pass that chooses classes asks here what may be left; the pass ``meet``, behind all that is done to the model,
measures what came of it and, where a target does not hold, sends the job back to the choice with other budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, cast

from graphprune.analysis import Analysis
from graphprune.errors import TargetError
from graphprune.passes.aim.latency import Clock
from graphprune.passes.choose.allocation import Allocated, Budget
from graphprune.passes.kept import Keeping, Memory
from graphprune.passes.metric import Metric

if TYPE_CHECKING:
    from graphprune.passes.aim.blocks import Weighed
    from graphprune.passes.state import State


@dataclass(frozen=True)
class Try:
    """One choice, and what came of it.

    Attributes:
        goals: by kind what might be left, as it was chosen for.
        left: by kind what was measured of the result: amounts, of latencies shares of the original's, of scores drops.
        holds: whether all targets do.
        blocks: ids of whole blocks that went beside.
        loss: the distance of the outputs from the original's, where blocks are weighed against widths.
    """

    goals: Mapping[str, float]
    left: Mapping[str, float]
    holds: bool
    blocks: tuple[str, ...] = ()
    loss: float | None = None


@dataclass(frozen=True)
class Course:
    """Where a job is on its way.

    Attributes:
        goals: by kind what may be left, for the next choice.
        tries: so far.
        best: the state behind the best result that holds, None where none does.
        nearest: the state behind the result that comes nearest, None before the first.
        metric: what a drop is measured by.
        distance: what blocks and widths are weighed against each other by; None where no blocks go.
        offered: how many tries had whole blocks gone.
        weighed: blocks on the scale of widths, where they were looked at.
        plain: what might be left in the try without blocks that is the best.
        exhausted: whether as much goes as may, and a budget is not met.
        clock: how latency is told.
        memory: what has not to be computed again for another try.
    """

    goals: Mapping[str, float]
    tries: tuple[Try, ...] = ()
    best: State | None = field(default=None, repr=False)
    nearest: State | None = field(default=None, repr=False)
    metric: Metric | None = field(default=None, repr=False)
    distance: Metric | None = field(default=None, repr=False)
    offered: int = 0
    weighed: Weighed | None = field(default=None, repr=False)
    plain: Mapping[str, float] = field(default_factory=dict)
    exhausted: bool = False
    clock: Clock | None = field(default=None, repr=False)
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)


class Aiming(Protocol):
    """A pass that says what may be left."""

    nearest: bool

    def start(self, state: State) -> State:
        """The state with a course, and with what was measured of the original."""

    def budgets(self, state: State, analysis: Analysis, goals: Mapping[str, float]) -> Sequence[Budget]:
        """Budgets of a model, for goals by kind."""

    def shares(self, state: State, left: Mapping[str, float]) -> Mapping[str, float]:
        """What budgets leave, in the units of the limits: of a time its share of the original's."""

    def unmet(self, state: State, left: Mapping[str, float]) -> str:
        """What does not hold, in words, where so much is left."""


def aim(state: State) -> Aiming | None:
    """The next pass ahead that aims at targets."""
    return next((cast(Aiming, one) for one in state.ahead if one.name == "meet"), None)


def budgets(state: State, analysis: Analysis) -> tuple[Sequence[Budget], State]:
    """What may be left of a model after the next cut, and the state with what was measured to know it.

    Where more rounds are ahead, each takes the same share of what is left.
    """
    one = aim(state)
    assert one is not None
    if state.found(Course) is None:
        state = one.start(state)
    found = state.found(Course)
    assert found is not None
    whole = one.budgets(state, analysis, found.goals)
    names = [other.name for other in state.ahead]
    names = names[: names.index("meet")]
    rounds = 1 + names.count("select")
    return whole if rounds == 1 else [_partly(state, analysis, budget, rounds) for budget in whole], state


def _partly(state: State, analysis: Analysis, budget: Budget, rounds: int) -> Budget:
    from graphprune.passes.choose.widths import Widths

    now = budget.meter(Widths(analysis, [], {})).total
    share = min(1.0, budget.limit / now) if now else 1.0  # there may be nothing that the budget is of
    return replace(budget, limit=now * share ** (1 / rounds))


def memory(state: State) -> Keeping | None:
    """Where rankings are kept: for other runs of the job where it has a folder, else for other tries of this one."""
    found = state.found(Course)
    return state.kept if state.kept is not None or found is None else found.memory


def noted(state: State, allocated: Allocated) -> State:
    """The state with what was chosen, and whether there is more to remove; an error where the most that may go fails.

    Raises:
        TargetError: it does not, and the nearest is not asked for; says what can be had.
    """
    one, found = aim(state), state.found(Course)
    if one is None or found is None:
        return state
    if allocated.worth is None and not one.nearest and not found.tries:
        unmet = one.unmet(state, one.shares(state, allocated.left))
        raise TargetError(
            f"{state.original.name}: {unmet}, by all that may be removed of it. Nothing was written; --nearest writes "
            "what comes nearest"
        )
    return state.having(replace(found, exhausted=allocated.worth is None), allocated)
