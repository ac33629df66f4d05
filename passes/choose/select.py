"""The pass that chooses classes: which of each group go, by a share of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.analysis import Analysis, Group
from graphprune.errors import InputError
from graphprune.passes.choose import criteria, selection
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.constants import Constant
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ratio import Cause, Untouched
from graphprune.passes.contract import Pass
from graphprune.passes.kept import content
from graphprune.passes.state import State
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
        ratio: share of each group's classes to remove, above 0 and below 1.
        criterion: by what classes are ranked: one of ``graphprune.passes.choose.criteria.names()``.
        uniform: take the same share of every group; else the ratio says only how many multiply-accumulates go, and
            calibration inputs say which groups give them (see ``graphprune.passes.choose.allocation``).
        align: widths that remain are rounded up to a multiple of this; where it is left out, what passes ahead ask for,
            else a multiple of 4 or of 2 where that costs little of a group.
        include: globs on group ids and node names: these and no others.
        exclude: globs on group ids and node names: not these.
        allow_statistical: groups too that a mean runs over: removal leaves an error, which the proof reports.
    """

    name: ClassVar[str] = "select"

    ratio: float
    criterion: str = "magnitude"
    uniform: bool = False
    align: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_statistical: bool = False

    def requires(self, state: State) -> Sequence[str]:
        """The ratio is a share, inputs are there for criteria that look at them, and what is chosen will be cut."""
        by_ratio.check_ratio(self.ratio, self.align)
        criteria.resolve_criterion(self.criterion, state.job.calibration is not None)
        return () if state.will("cut") else ("no pass 'cut' is ahead, so that what is chosen would stay",)

    def phases(self, state: State) -> Sequence[str]:
        """Where inputs are looked at, they take most of the time."""
        looks = criteria.needs_inputs(self.criterion)
        return [*["observe"] * looks, "rank", *["weigh"] * (looks and not self.uniform), "select"]

    def call(self, state: State) -> State:
        """Put the classes that are to go into the plan."""
        analysis, job = state.analysis(), state.job
        groups, left = by_ratio.candidates(
            analysis, self.include, self.exclude, self.allow_statistical, self.ratio or 0.5
        )
        taken = {entry.id for entry in state.plan.groups}  # by an earlier pass, which has the say
        groups = [group for group in groups if group.id not in taken]
        request = selection.Request(self.ratio, self._widths(state), self.criterion, self.uniform)
        again = None if state.kept is None else state.kept.on(self.name, content(state.model))
        batches = state.batches(state.model)
        selected = selection.select(analysis, groups, request, batches, job.seed, state.progress, again)
        untouched = left + selected.chosen.untouched
        if not selected.chosen.selection:
            raise InputError(_nothing(analysis, untouched, self.ratio))
        entries = [
            _entry(analysis.group(id), classes, selected.scores) for id, classes in selected.chosen.selection.items()
        ]
        before = state.found(Chosen) or Chosen({}, {}, [])
        chosen = {entry.id for entry in (*state.plan.groups, *entries)}
        kept = [one for one in untouched if one.group not in chosen]
        found = Chosen({**before.scores, **selected.scores}, {**before.constant, **selected.constant}, kept)
        return state.having(found, plan=replace(state.plan, groups=[*state.plan.groups, *entries]))

    def _widths(self, state: State) -> by_ratio.Align:
        return self.align if self.align is not None else state.bounds() or None


def _entry(group: Group | None, classes: Sequence[int], scores: Scores) -> GroupPlan:
    assert group is not None
    entry = GroupPlan(group.id, group.kind, group.size, group.statistical, list(classes))
    entry.score = told(scores, group.id)
    return entry


def told(scores: Scores, group: str) -> list[float] | None:
    """Scores of a group as a plan holds them: six digits, and numbers that JSON knows."""
    return [float(f"{min(s, 1e30):.6g}") for s in scores[group]] if group in scores else None


def _nothing(analysis: Analysis, untouched: list[Untouched], ratio: float) -> str:
    """Why nothing can be removed, in one line, with what could be done."""
    name = analysis.model.name
    if not analysis.groups:
        largest = max(analysis.fixed, key=lambda g: g.parameters.sum(), default=None)
        why = f": group {largest.id!r} stays because {largest.reasons[0].text}" if largest and largest.reasons else ""
        note = f"; node {analysis.notes[0].node!r}: {analysis.notes[0]}" if analysis.notes else ""
        return f"{name}: nothing is prunable{why}{note}; 'graphprune inspect' lists what there is"
    sizes = [g.size for g in analysis.groups if not g.statistical]
    if sizes and {u.cause for u in untouched} <= {Cause.TOO_FEW, Cause.STATISTICAL}:
        least = math.ceil(1e4 / max(sizes)) / 1e4  # rounded down it would remove nothing again
        return f"{name}: --ratio {ratio:g} removes nothing; the smallest that does is {least:g}"
    first = untouched[0]
    return f"{name}: nothing can be removed: group {first.group!r}: {first}"
