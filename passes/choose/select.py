"""The pass that chooses classes: which of each group go, by a share of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from graphprune.analysis import Analysis, Group
from graphprune.errors import InputError
from graphprune.passes.aim import course
from graphprune.passes.choose import allocation, criteria, selection
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.allocation import Asked, Budget
from graphprune.passes.choose.constants import Constant
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ratio import STRANGE, Cause, Untouched
from graphprune.passes.choose.search import Effort
from graphprune.passes.contract import SCHEMA, Pass
from graphprune.passes.kept import content
from graphprune.passes.rounds import Cutting, descent, joined, pending
from graphprune.passes.state import State
from graphprune.rewrite.lineage import Ancestor
from graphprune.rewrite.plan import GroupPlan


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and what was not.

    Attributes:
        scores: by group id, shape ``[classes]``.
        constant: classes that no input changes, by group id; they went first.
        untouched: prunable groups of which nothing is removed, and why.
    """

    scores: Scores
    constant: Constant
    untouched: list[Untouched]


@dataclass(frozen=True)
class Select(Pass):
    """Choose the least important classes of groups.

    Attributes:
        ratio: share of each group's classes to remove, above 0 and below 1; of what the original has, so that in the
            next round of several it says how much is gone then. Where it is left out, a pass ``meet`` ahead says what
            may be left.
        criterion: by what classes are ranked: one of ``graphprune.passes.choose.criteria.names()``; or ``auto``, which
            is ``obs`` with calibration inputs and ``magnitude`` without.
        uniform: take the same share of every group; else the ratio says only how many multiply-accumulates go, and
            calibration inputs say which groups give them (see ``graphprune.passes.choose.allocation``).
        align: widths that remain are rounded up to a multiple of this; where it is left out, what passes ahead ask for,
            else a multiple of 4 or of 2 where that costs little of a group.
        include: globs on group ids and node names: these and no others.
        exclude: globs on group ids and node names: not these.
        allow_statistical: groups too that a mean runs over: removal leaves an error, which the proof reports.
        search: look for a better allocation with calibration inputs: a number of candidates as ``40``, or a time as
            ``10m`` (see ``graphprune.passes.choose.search``); None does not.
    """

    name: ClassVar[str] = "select"
    chooses: ClassVar[bool] = True

    ratio: float | None = None
    criterion: str = field(default="magnitude", metadata={SCHEMA: {"examples": [criteria.AUTO, *criteria.CRITERIA]}})
    uniform: bool = False
    align: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_statistical: bool = False
    search: str | None = None

    def requires(self, state: State) -> Sequence[str]:
        """The ratio is a share, inputs are there for criteria that look at them, and what is chosen will be cut."""
        by_ratio.check_ratio(self.ratio or 0.0, self.align)
        criterion = self._criterion(state)
        if self.search is not None:
            Effort.read(self.search)
            if self.uniform or not criteria.needs_inputs(criterion):
                return (_UNSEARCHED,)
        if not state.will("cut"):
            return ("no pass 'cut' is ahead, so that what is chosen would stay",)
        if self.ratio is None:
            aimed = state.will("meet")
            return () if aimed else ("ratio is missing; give one, or put a pass 'meet' with targets behind it",)
        return self._growing(self.ratio, state)

    def _growing(self, ratio: float, state: State) -> Sequence[str]:
        names = [one.name for one in state.ahead]
        later = [
            one
            for one in state.ahead[names.index("cut") :]
            if isinstance(one, Select) and self._scope() == one._scope() and one.ratio is not None
        ]
        if all(one.ratio is not None and one.ratio > ratio for one in later):
            return ()
        return (
            f"the 'select' of a later round must have a ratio above {ratio:g}: it is of what the original has, so "
            "that it says how much is gone then",
        )

    def _criterion(self, state: State) -> str:
        return criteria.resolve_criterion(self.criterion, state.job.calibration is not None)

    def _scope(self) -> tuple[list[str], list[str]]:
        return sorted(self.include), sorted(self.exclude)

    def phases(self, state: State) -> Sequence[str]:
        """Where inputs are looked at, they take most of the time."""
        looks = criteria.needs_inputs(self._criterion(state))
        searches = self.search is not None
        return [
            *["observe"] * looks,
            "rank",
            *["weigh"] * (looks and not self.uniform),
            "select",
            *["search"] * searches,
        ]

    def costs(self, state: State) -> Mapping[str, float]:
        """Candidates of a search cost about a forward pass each."""
        effort = None if self.search is None else Effort.read(self.search)
        return {"search": float(effort.candidates)} if effort is not None and effort.candidates is not None else {}

    def spends(self, left: float, each: float) -> float:
        """The time that a search has."""
        return 0.0 if self.search is None else Effort.read(self.search).seconds or 0.0

    def call(self, state: State) -> State:
        """Put the classes that are to go into the plan."""
        earlier, job = state.found(Cutting), state.job
        analysis, kin = (state.analysis(), None) if earlier is None else descent(state, earlier)
        groups, left = self._candidates(state, analysis, kin)
        request, state = self._request(state, analysis, groups, kin)
        again = course.memory(state)
        again = None if again is None else again.on(self.name, content(state.model))
        selected = selection.select(
            analysis, groups, request, state.batches(state.model), job.seed, state.progress, again
        )
        untouched = left + selected.chosen.untouched
        if selected.allocated is not None:
            course.check(state, selected.allocated)
        if not (selected.chosen.selection or state.plan.groups or state.will(self.name)):
            raise InputError(_nothing(analysis, untouched, self.ratio))
        entries = [
            _entry(analysis, id, classes, selected.scores, None if kin is None else kin[id])
            for id, classes in selected.chosen.selection.items()
        ]
        known = state.found(Chosen)
        if known is None or (earlier is not None and not pending(state)):
            known = Chosen({}, {}, [])
        plan = joined(state.plan, entries)
        chosen = {entry.id for entry in plan.groups}
        kept = [one for one in _in_terms(untouched, kin) if one.group not in chosen]
        found = Chosen({**known.scores, **selected.scores}, {**known.constant, **selected.constant}, kept)
        return state.having(found, plan=plan).noting(*selected.notes)

    def _candidates(
        self, state: State, analysis: Analysis, kin: Mapping[str, Ancestor] | None
    ) -> tuple[list[Group], list[Untouched]]:
        """Groups to choose from, and those that stay whole for a reason of their own."""
        whole = None if kin is None else {id: one.group.size for id, one in kin.items()}
        called = None if kin is None else {id: one.group.id for id, one in kin.items()}
        share = by_ratio.going(analysis.groups, self.ratio or 0.5, whole)
        groups, left = by_ratio.candidates(analysis, self.include, self.exclude, self.allow_statistical, share, called)
        taken = {entry.id for entry in pending(state)}  # by an earlier pass, which has the say
        if called is None:
            return [group for group in groups if group.id not in taken], left
        lost = [Untouched(STRANGE, group=g.id, cause=Cause.STRANGE) for g in groups if g.id not in called]
        return [g for g in groups if called.get(g.id, "") not in {"", *taken}], left + lost

    def _request(
        self, state: State, analysis: Analysis, groups: Sequence[Group], kin: Mapping[str, Ancestor] | None
    ) -> tuple[selection.Request, State]:
        """What is asked for, and the state with what was measured to know it."""
        whole = {} if kin is None else {id: one.group.size for id, one in kin.items()}
        asked = Asked((), align=self._widths(state), even=self.uniform, whole=whole)
        criterion, effort = self._criterion(state), None if self.search is None else Effort.read(self.search)
        if self.ratio is None:
            budgets, state = course.budgets(state, analysis)
            share = allocation.needed(analysis, groups, budgets, whole)
            asked = replace(asked, budgets=budgets, share=by_ratio.going(groups, share, whole))
            depth = next(one for one in DEPTHS if one >= min(share, DEPTHS[-1]))
            return selection.Request(None, replace(asked, most=depth), criterion, depth, effort), state
        even, budget = allocation.even(analysis, groups, self.ratio, asked.align, whole)
        alike = {id: len(classes) for id, classes in even.selection.items()}
        if kin is not None:
            budget = self._since(state, kin)
        share = by_ratio.going(groups, self.ratio, whole)
        depth = max(allocation.MOST, self.ratio)
        asked = replace(asked, budgets=(budget,), most=depth, share=share, alike=alike)
        return selection.Request(self.ratio, asked, criterion, depth, effort), state

    def _since(self, state: State, kin: Mapping[str, Ancestor]) -> Budget:
        """What is left when as much of the original is gone as the same share of every group frees."""
        earlier, align = state.found(Cutting), self._widths(state)
        assert earlier is not None and self.ratio is not None
        first = earlier.analysis
        if isinstance(align, Mapping):
            align = {kin[id].group.id: width for id, width in align.items() if id in kin}
        groups = by_ratio.candidates(first, self.include, self.exclude, self.allow_statistical, self.ratio or 0.5)[0]
        even, _ = allocation.even(first, groups, self.ratio, align)
        gone, own = earlier.done.plan.selection, {g.id for g in groups}
        goal = {**{id: classes for id, classes in gone.items() if id not in own}, **even.selection}
        return allocation.leaving(first, first.groups, goal)

    def _widths(self, state: State) -> by_ratio.Align:
        return self.align if self.align is not None else state.bounds() or None


_UNSEARCHED = (
    "search refits candidates from what inputs show, and shares out what goes: give --calibration, a criterion that "
    "looks at inputs, and no --uniform"
)


def _in_terms(untouched: Sequence[Untouched], kin: Mapping[str, Ancestor] | None) -> list[Untouched]:
    """Groups by what they are called in the original."""
    if kin is None:
        return list(untouched)
    return [replace(one, group=kin[one.group].group.id) if one.group in kin else one for one in untouched]


def _entry(analysis: Analysis, id: str, classes: Sequence[int], scores: Scores, ancestor: Ancestor | None) -> GroupPlan:
    """What the plan says of a group of the model as it is now, in terms of the original."""
    group, score = analysis.group(id), told(scores, id)
    assert group is not None
    if ancestor is None:
        return GroupPlan(id, group.kind, group.size, group.statistical, list(classes), score=score)
    group = ancestor.group
    spread: list[float] | None = None
    if score is not None:
        spread = [0.0] * group.size
        for place, value in zip(ancestor.classes, score, strict=False):
            spread[int(place)] = value
    removed = sorted(ancestor.told(classes))
    return GroupPlan(group.id, group.kind, group.size, group.statistical, removed, score=spread)


def told(scores: Scores, group: str) -> list[float] | None:
    """Scores of a group as a plan holds them: six digits, and numbers that JSON knows."""
    return [float(f"{min(s, 1e30):.6g}") for s in scores[group]] if group in scores else None


DEPTHS = (allocation.MOST, 0.8, 0.95)
"""How much of one group may go at most, where targets are aimed at: the first that is enough for an even share."""


def _nothing(analysis: Analysis, untouched: list[Untouched], ratio: float | None) -> str:
    """Why nothing can be removed, in one line, with what could be done."""
    name = analysis.model.name
    if not analysis.groups:
        largest = max(analysis.fixed, key=lambda g: g.parameters.sum(), default=None)
        why = f": group {largest.id!r} stays because {largest.reasons[0].text}" if largest and largest.reasons else ""
        note = f"; node {analysis.notes[0].node!r}: {analysis.notes[0]}" if analysis.notes else ""
        return f"{name}: nothing is prunable{why}{note}; 'graphprune inspect' lists what there is"
    sizes = [g.size for g in analysis.groups if not g.statistical]
    if ratio is not None and sizes and {u.cause for u in untouched} <= {Cause.TOO_FEW, Cause.STATISTICAL}:
        least = math.ceil(1e4 / max(sizes)) / 1e4  # rounded down it would remove nothing again
        return f"{name}: --ratio {ratio:g} removes nothing; the smallest that does is {least:g}"
    first = untouched[0]
    return f"{name}: nothing can be removed: group {first.group!r}: {first}"
