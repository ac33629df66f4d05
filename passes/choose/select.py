"""The pass that chooses classes: which of each group go, by a share of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import lcm
from typing import ClassVar

from graphprune.analysis import Analysis, Group
from graphprune.errors import InputError
from graphprune.passes.aim import course
from graphprune.passes.choose import allocation, backends, criteria, families, selection, why
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.allocation import Asked, Budget, Terms
from graphprune.passes.choose.choices import Choices
from graphprune.passes.choose.constants import Constant
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ratio import STRANGE, Cause, Untouched
from graphprune.passes.choose.search import Effort
from graphprune.passes.choose.selection import DEPTHS
from graphprune.passes.choose.steering import Steered, Steering
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
        align: widths that remain are rounded up to a multiple of this; where it is left out, what passes ahead ask for
            and ``backend`` says, else a multiple of 4 or of 2 where that costs little of a group.
        include: globs on group ids and node names: these and no others.
        exclude: globs on group ids and node names: not these.
        allow_statistical: groups too that a mean runs over: removal leaves an error, which the proof reports.
        backend: the runtime that the model is for, whose widths it gets (see ``graphprune.passes.choose.backends``).
        ratios, limits, min_width, before, after, keep_first, keep_last, keep_heads: what holds for single groups, and
            which stay whole (see ``graphprune.passes.choose.steering``).
        uniform_widths: layers that repeat keep one width, so that a configuration with one number for all of them fits
            (see ``graphprune.passes.choose.families``). What stays whole of them keeps all of them whole.
        search: look for a better allocation with calibration inputs: a number of candidates as ``40``, or a time as
            ``10m`` (see ``graphprune.passes.choose.search``).
    """

    name: ClassVar[str] = "select"
    chooses: ClassVar[bool] = True
    begins: ClassVar[bool] = True

    ratio: float | None = None
    criterion: str = field(default="magnitude", metadata={SCHEMA: {"examples": [criteria.AUTO, *criteria.CRITERIA]}})
    uniform: bool = False
    align: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_statistical: bool = False
    backend: str | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    min_width: int | None = None
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    keep_first: int = 0
    keep_last: int = 0
    keep_heads: bool = False
    uniform_widths: bool = False
    search: str | None = None

    @property
    def steering(self) -> Steering:
        """What holds for single groups."""
        return Steering(**{one.name: getattr(self, one.name) for one in fields(Steering)})

    def requires(self, state: State) -> Sequence[str]:
        """The ratio is a share, inputs are there for criteria that look at them, and what is chosen will be cut."""
        by_ratio.check_ratio(self.ratio or 0.0, self.align)
        self.steering.check()
        if self.backend is not None:
            backends.find(self.backend)
        looks = criteria.needs_inputs(self._criterion(state))
        if self._effort is not None and (self.uniform or not looks):
            return (_UNSEARCHED,)
        if not state.will("cut"):
            return ("no pass 'cut' is ahead, so that what is chosen would stay",)
        if self.ratio is None and not any(self.ratios.values()):
            aimed = state.will("meet")
            return () if aimed else ("ratio is missing; give one, or put a pass 'meet' with targets behind it",)
        return self._growing(state)

    def _growing(self, state: State) -> Sequence[str]:
        """Later rounds take more."""
        names = [one.name for one in state.ahead]
        later = [
            one
            for one in state.ahead[names.index("cut") :]
            if isinstance(one, Select) and self._scope() == one._scope()
        ]
        if all(_more(self, one) for one in later):
            return ()
        return (
            f"the 'select' of a later round must have a ratio above {self.ratio or 0:g}: it is of what the original "
            "has, so that it says how much is gone then",
        )

    def _criterion(self, state: State) -> str:
        return criteria.resolve_criterion(self.criterion, state.job.calibration is not None)

    def _scope(self) -> list[list[str]]:
        return [sorted(one) for one in (self.include, self.exclude, self.before, self.after)]

    def phases(self, state: State) -> Sequence[str]:
        """Where inputs are looked at, they take most of the time."""
        looks = criteria.needs_inputs(self._criterion(state))
        weighs, searches = looks and not self.uniform, self.search is not None
        return [*["observe"] * looks, "rank", *["weigh"] * weighs, "select", *["search"] * searches]

    def costs(self, state: State) -> Mapping[str, float]:
        """Candidates of a search cost about a forward pass each."""
        effort = self._effort
        return {"search": float(effort.candidates)} if effort is not None and effort.candidates is not None else {}

    def spends(self, left: float, each: float) -> float:
        """The time that a search has."""
        return 0.0 if self._effort is None else self._effort.seconds or 0.0

    @property
    def _effort(self) -> Effort | None:
        return None if self.search is None else Effort.read(self.search)

    def call(self, state: State) -> State:
        """Put the classes that are to go into the plan."""
        earlier, job = state.found(Cutting), state.job
        analysis, kin = (state.analysis(), None) if earlier is None else descent(state, earlier)
        first = self.steering.of(analysis if earlier is None else earlier.analysis)
        groups, left = self._candidates(state, analysis, kin, first.now(kin))
        if self.uniform_widths:
            groups, others = families.whole(analysis, groups, left)
            left = left + others
        request, state = self._request(state, analysis, groups, kin, first)
        again = course.memory(state)
        again = None if again is None else again.on(self.name, content(state.model))
        batches = state.batches(state.model)
        selected = selection.select(analysis, groups, request, batches, job.seed, state.progress, again)
        told = why.choices(analysis, groups, request, selected, left, 1 if earlier is None else earlier.rounds + 1)
        told = self._explained(told)
        own = {g.id for g in groups}
        whole = [one for one in told.groups if one.id in own and not one.removed]
        untouched = left + [Untouched(one.why, group=one.id, cause=one.cause) for one in whole]
        if selected.allocated is not None:
            state = course.noted(state, selected.allocated)
        enough = selected.allocated is not None and self._aims(state)  # a target may hold as it is
        if not (selected.chosen.selection or state.plan.groups or state.will(self.name) or enough):
            raise InputError(_nothing(analysis, untouched, self.ratio))
        entries = [
            _entry(analysis, id, classes, selected.scores, None if kin is None else kin[id])
            for id, classes in selected.chosen.selection.items()
        ]
        known = state.found(Chosen)
        if known is None or (earlier is not None and not pending(state)):
            known = Chosen({}, {}, [])
        plan = joined(state.plan, entries)
        plan = replace(plan, choices=[*plan.choices, told.told(kin).to_json()])
        chosen = {entry.id for entry in plan.groups}
        kept = [one for one in _in_terms(untouched, kin) if one.group not in chosen]
        found = Chosen({**known.scores, **selected.scores}, {**known.constant, **selected.constant}, kept)
        notes = [*self._meant(analysis if earlier is None else None), *selected.notes]
        return state.having(found, plan=plan).noting(*notes)

    def _candidates(
        self, state: State, analysis: Analysis, kin: Mapping[str, Ancestor] | None, steered: Steered
    ) -> tuple[list[Group], list[Untouched]]:
        """Groups to choose from, and those that stay whole for a reason of their own."""
        whole = None if kin is None else {id: one.group.size for id, one in kin.items()}
        called = None if kin is None else {id: one.group.id for id, one in kin.items()}
        share = by_ratio.going(analysis.groups, self._share, whole)
        groups, left = by_ratio.candidates(analysis, self.include, self.exclude, self.allow_statistical, share, called)
        groups, kept = steered.apart(analysis, groups, share)
        left += kept
        taken = {entry.id for entry in pending(state)}  # by an earlier pass, which has the say
        if called is None:
            return [group for group in groups if group.id not in taken], left
        lost = [Untouched(STRANGE, group=g.id, cause=Cause.STRANGE) for g in groups if g.id not in called]
        return [g for g in groups if called.get(g.id, "") not in {"", *taken}], left + lost

    @property
    def _share(self) -> float:
        return by_ratio.usual(self.ratio or 0.0, self.ratios) or 0.5

    def _aims(self, state: State) -> bool:
        """Whether targets say how much goes."""
        return self.ratio is None and state.will("meet")

    def _request(
        self,
        state: State,
        analysis: Analysis,
        groups: Sequence[Group],
        kin: Mapping[str, Ancestor] | None,
        first: Steered,
    ) -> tuple[selection.Request, State]:
        """What is asked for, and the state with what was measured to know it."""
        whole = {} if kin is None else {id: one.group.size for id, one in kin.items()}
        steered, criterion = first.now(kin), self._criterion(state)
        terms = Terms(self._widths(state, analysis), whole, steered.most, steered.ratios, self.uniform_widths)
        deepest = max(allocation.MOST, *steered.ratios.values(), 0.0)
        if self._aims(state):
            budgets, state = course.budgets(state, analysis)
            share = allocation.needed(analysis, groups, budgets, whole)
            depth = next((one for one in DEPTHS if one >= max(share, deepest)), DEPTHS[-1])
            share = by_ratio.going(groups, share, whole)
            fixed = allocation.even(analysis, groups, 0.0, terms)[0]
            asked = Asked(budgets, terms, depth, share, self.uniform, alike=_counted(fixed))
            return selection.Request(None, asked, criterion, depth, self._effort), state
        ratio = self.ratio or 0.0
        even, budget = allocation.even(analysis, groups, ratio, terms)
        if kin is not None:
            budget = self._since(state, kin, first)
        share, depth = by_ratio.going(groups, self._share, whole), max(deepest, ratio)
        asked = Asked((budget,), terms, depth, share, self.uniform, holds=True, alike=_counted(even))
        return selection.Request(ratio, asked, criterion, depth, self._effort), state

    def _since(self, state: State, kin: Mapping[str, Ancestor], steered: Steered) -> Budget:
        """What is left when as much of the original is gone as the same share of every group frees."""
        earlier = state.found(Cutting)
        assert earlier is not None
        first, align = earlier.analysis, self._widths(state, state.analysis())
        if isinstance(align, Mapping):
            align = {kin[id].group.id: width for id, width in align.items() if id in kin}
        groups = by_ratio.candidates(first, self.include, self.exclude, self.allow_statistical, self._share)[0]
        groups = steered.apart(first, groups, self._share)[0]
        if self.uniform_widths:
            groups = families.whole(first, groups, ())[0]
        terms = Terms(align, {}, steered.most, steered.ratios, self.uniform_widths)
        even, _ = allocation.even(first, groups, self.ratio or 0.0, terms)
        gone, own = earlier.done.plan.selection, {g.id for g in groups}
        goal = {**{id: classes for id, classes in gone.items() if id not in own}, **even.selection}
        return allocation.leaving(first, first.groups, goal)

    def _widths(self, state: State, analysis: Analysis) -> by_ratio.Align:
        bounds = state.bounds()
        if self.align is not None or self.backend is None:
            return self.align if self.align is not None else bounds or None
        steps = backends.find(self.backend).steps(backends.kind_of(analysis))
        return {g.id: tuple(lcm(n, bounds[g.id]) if g.id in bounds else n for n in steps) for g in analysis.groups}

    def _meant(self, analysis: Analysis | None) -> list[str]:
        """What widths a backend is taken to want, told before the first cut."""
        if self.backend is None or self.align is not None or analysis is None:
            return []
        one = backends.find(self.backend)
        kind = one.kind or backends.kind_of(analysis)
        return [f"for {one.name}: widths are multiples of {one.align(kind)}, as pays with {kind} weights"]

    def _explained(self, told: Choices) -> Choices:
        """Why a backend's multiple keeps groups whole."""
        if self.backend is None or self.align is not None:
            return told
        says = backends.find(self.backend).why
        groups = (replace(c, why=f"{c.why}, and {says}") if c.cause is Cause.WIDTH else c for c in told.groups)
        return replace(told, groups=tuple(groups))


_UNSEARCHED = (
    "search refits candidates from what inputs show, and shares out what goes: give --calibration, a criterion that "
    "looks at inputs, and no --uniform"
)


def _counted(chosen: by_ratio.Chosen) -> dict[str, int]:
    return {id: len(classes) for id, classes in chosen.selection.items()}


def _more(one: Select, later: Select) -> bool:
    """Whether another round asks for more of something, and for less of nothing."""
    pairs = [(one.ratios.get(g, 0), later.ratios.get(g, 0)) for g in {**one.ratios, **later.ratios}]
    pairs.append((one.ratio or 0.0, later.ratio or 0.0))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


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
    return [float(f"{s if s < 1e30 else 1e30:.6g}") for s in scores[group]] if group in scores else None


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
