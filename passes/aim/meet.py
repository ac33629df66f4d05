"""The pass that makes sure that targets hold: it measures what came of the job, and has it go on otherwise if not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from graphprune.analysis import Analysis
from graphprune.errors import InputError, TargetError
from graphprune.model.arguments import Count
from graphprune.passes.aim import measure, targets
from graphprune.passes.aim.blocks import weighed
from graphprune.passes.aim.course import Course, Try
from graphprune.passes.aim.latency import clock, sizes
from graphprune.passes.aim.onward import DROP, Rules, onward
from graphprune.passes.aim.targets import Target
from graphprune.passes.choose.allocation import Allocated, Budget
from graphprune.passes.contract import Again, Pass
from graphprune.passes.depth.remove import Worthwhile
from graphprune.passes.metric import FIDELITY, fidelity, metric
from graphprune.passes.state import State
from graphprune.verdict import latency

LATENCY = "latency"
OFFERS = 2
"""Tries with whole blocks gone: the first says what a fit leaves of what is lost without them."""
FIRST = 0.5
"""Share of the cost that is left in the first try where a drop alone is aimed at."""


@dataclass(frozen=True)
class Met:
    """How targets were met.

    Attributes:
        targets: by kind each as it was given, what may be left, and what is.
        tries: in order.
        chosen: the place among the tries of the one that was taken.
        missed: what does not hold, in words; empty where all do.
    """

    targets: Mapping[str, tuple[str, float, float]]
    tries: Sequence[Try]
    chosen: int = 0
    missed: str = ""


@dataclass(frozen=True)
class Meet(Pass):
    """Have classes chosen so that targets hold, as closely as may be.

    Attributes:
        targets: what is wanted, as ``macs=0.5``, ``params=3e6``, ``bytes=10M``, ``latency=0.67``, ``speedup=1.5``,
            ``drop=0.01``; all of them hold in the end.
        nearest: where they cannot be met, take what comes nearest; the exit status says so all the same.
        metric: what drops, for ``drop``: one of ``graphprune.passes.metric.FIDELITY``, on held-out calibration inputs,
            or ``module:function``, from an ``onnx.ModelProto`` to a score of which more is better.
        tries: how often classes are chosen anew, at most.
        table: for ``latency`` and ``speedup``: what each layer takes at each width, as ``graphprune profile`` wrote it
            on the device. Where it is left out layers are timed here, and what comes of it is measured in paired runs.
        device: where they are timed: ``cpu``, ``cuda``, ``tensorrt``, or an execution provider of ONNX Runtime.
        threads: within one operator; 0 leaves it to ONNX Runtime.
        blocks: with calibration inputs, let whole blocks go where less is lost than by narrower widths; passes
            ``select-blocks`` (``aimed``) and ``remove-blocks`` come first then.
    """

    name: ClassVar[str] = "meet"

    targets: Sequence[str]
    nearest: bool = False
    metric: str | Callable[..., Any] = FIDELITY[0]
    tries: int = 10
    table: str | None = None
    device: str = "cpu"
    threads: Count = 0
    blocks: bool = True

    @property
    def wanted(self) -> tuple[Target, ...]:
        """The targets.

        Raises:
            InputError: one is none.
        """
        return targets.parse_all(self.targets)

    def requires(self, state: State) -> Sequence[str]:
        """Targets are there, and what their measures need."""
        if not self.wanted:
            return ("targets is empty; give one like macs=0.5",)
        if self.tries < 1:
            return ("tries must be at least 1",)
        if any(one.kind == DROP for one in self.wanted) and fidelity(self.metric) and state.job.calibration is None:
            return (
                "a drop is measured on inputs: give them by --calibration, or a score of yours by --metric "
                "module:function",
            )
        return ()

    def phases(self, state: State) -> Sequence[str]:
        """Where a score or a time is taken it takes time."""
        kinds = {one.kind for one in self.wanted}
        return [*["time it"] * (LATENCY in kinds), *["score"] * (DROP in kinds)]

    def start(self, state: State) -> State:
        """The state with a course, and with what was measured of the original."""
        kinds = {one.kind for one in self.wanted}
        course, original = Course({}), state.analysis(state.original).model
        if DROP in kinds:
            course = replace(course, metric=metric(self.metric, original, state.batches(original), state.job.seed))
        if LATENCY in kinds:
            provider = latency.DEVICES.get(self.device, self.device)
            course = replace(course, clock=clock(state, self.table, provider, self.threads))
        if self.blocks and state.found(Worthwhile) is not None and state.job.calibration is not None:
            judge = metric(FIDELITY[0], original, state.batches(original), state.job.seed)
            with suppress(InputError):  # where there are too few inputs to hold any out, blocks stay
                course = replace(course, distance=judge if judge.whole else None)
        rules = self._rules(state, course)
        goals = {k: limit for k, limit in rules.limits.items() if k != DROP}
        return state.having(replace(course, goals=goals or {rules.lead: FIRST * rules.whole}))

    def _rules(self, state: State, course: Course) -> Rules:
        limits = {}
        for one in self.wanted:
            if one.kind == DROP:
                limits[one.kind] = one.value
            elif one.kind == LATENCY:
                assert course.clock is not None
                limits[one.kind] = one.value if one.share else one.value / course.clock.seconds
            else:
                whole = measure.COSTS[one.kind][0](state)
                if not whole:
                    raise InputError(f"{state.original.name} has no {one.kind} that a target of {one} could be about")
                limits[one.kind] = one.limit(whole)
        lead = "macs" if measure.COSTS["macs"][0](state) else "params"
        return Rules(limits, lead=lead, whole=measure.COSTS[lead][0](state), tries=self.tries)

    def budgets(self, state: State, analysis: Analysis, goals: Mapping[str, float]) -> Sequence[Budget]:
        """What may be left of a model, as the choice of classes takes it."""
        course = state.found(Course)
        found = []
        for kind, goal in goals.items():
            if kind == LATENCY:
                assert course is not None and course.clock is not None
                whole = course.clock.table.seconds(sizes(state.analysis(state.original)))
                found.append(Budget(kind, goal * whole, course.clock.meter))
            else:
                found.append(measure.budget(kind, goal, state, analysis))
        return found

    def call(self, state: State) -> State:
        """Measure; and choose anew where a target does not hold, or more could go."""
        found = state.found(Course)
        if found is None:  # nothing was chosen for it
            return state
        rules = self._rules(state, found)
        left = {kind: _measured(kind, state, found) for kind in dict.fromkeys([*found.goals, *rules.limits])}
        blocks = tuple(entry.id for entry in state.plan.blocks)
        loss = None if found.distance is None else found.distance.drop(state.model)
        own = Try(found.goals, left, rules.holds(left), blocks, loss)
        course = further(found, state, own, rules)
        goals = onward(rules, [one for one in course.tries if one.blocks == blocks])
        if _time_left(state, len(course.tries)):
            if goals is not None and (own.holds or not found.exhausted):
                raise Again(replace(course, goals=goals), *_carried(state))
            self._offer(state, course)
        return self._settled(state, course, rules)

    def _offer(self, state: State, course: Course) -> None:
        """Have it tried with whole blocks gone, where they lose less than widths do.

        Raises:
            Again: some do.
        """
        best = course.best
        own, allocated = (None, None) if best is None else (best.found(Try), best.found(Allocated))
        if own is None or own.loss is None or allocated is None or course.offered >= OFFERS:
            return
        last = course.tries[-1]
        if course.weighed is None:
            course = replace(course, weighed=weighed(state, own.loss, allocated), plain=own.goals)
            some = [] if course.weighed is None else course.weighed.choose()
        elif last.blocks and last.loss is not None:
            gone = [k for k, block in enumerate(course.weighed.blocks) if block.id in last.blocks]
            some = course.weighed.choose(course.weighed.left(gone, last.loss))
            some = [] if set(some) <= set(gone) else some
        else:
            return
        if some and course.weighed is not None:
            found = course.weighed.told(some)
            raise Again(replace(course, goals=course.plain, offered=course.offered + 1), found)

    def _settled(self, state: State, course: Course, rules: Rules) -> State:
        """The best state, or where none will do the nearest if that is asked for.

        Raises:
            TargetError: no try holds; says what comes nearest.
        """
        chosen = course.best or course.nearest
        own = None if chosen is None else chosen.found(Try)
        assert chosen is not None and own is not None
        missed = "" if own.holds else self.unmet(state, own.left)
        if missed and not self.nearest:
            raise TargetError(f"{state.original.name}: {missed}. Nothing was written; --nearest writes it")
        told = {one.kind: (one.text, rules.limits[one.kind], own.left[one.kind]) for one in self.wanted}
        met = Met(told, course.tries, next(k for k, one in enumerate(course.tries) if one is own), missed)
        notes = () if course.metric is None else course.metric.notes
        found = chosen.having(met, replace(course, best=None, nearest=None)).noting(*notes)
        return replace(found, ahead=state.ahead, progress=state.progress)

    def shares(self, state: State, left: Mapping[str, float]) -> Mapping[str, float]:
        """What budgets leave, in the units of the limits: of a time its share of the original's."""
        course = state.found(Course)
        if LATENCY not in left or course is None or course.clock is None:
            return left
        return {**left, LATENCY: left[LATENCY] / course.clock.table.seconds(sizes(state.analysis(state.original)))}

    def unmet(self, state: State, left: Mapping[str, float]) -> str:
        """What does not hold, in words, where so much is left."""
        course = state.found(Course)
        assert course is not None
        limits, found = self._rules(state, course).limits, []
        for one in self.wanted:
            if one.kind in left and left[one.kind] > limits[one.kind]:
                found.append(f"--target {one.text} cannot be met: {_told(one, left[one.kind], limits[one.kind])}")
        return "; ".join(found)


def _time_left(state: State, tries: int) -> bool:
    """Whether a job with an end has time for another try, if that takes as long as those before."""
    if state.budget is None:
        return True
    return state.budget.left > (state.budget.seconds - state.budget.left) / tries


def _carried(state: State) -> list[Worthwhile]:
    """What of a try holds for the next."""
    found = state.found(Worthwhile)
    return [] if found is None else [found]


def _measured(kind: str, state: State, course: Course) -> float:
    if kind == DROP:
        assert course.metric is not None
        state.progress.begin("score")
        return course.metric.drop(state.model)
    if kind == LATENCY:
        assert course.clock is not None
        state.progress.begin("time it")
        return course.clock.left(state)
    return measure.COSTS[kind][1](state)


def _told(one: Target, left: float, limit: float) -> str:
    if one.kind == DROP:
        return f"{left:.4g} is the least drop that was found"
    if one.kind == LATENCY:
        return f"{1 / left:.3g} times as fast is the most that was found"
    if one.share:
        return f"{left / limit * one.value:.3g} of it is the least that can be had"
    return f"{left:,.6g} {one.kind} is the least that can be had"


def further(found: Course, state: State, own: Try, rules: Rules) -> Course:
    """The course with another try; it is kept where it holds and is better than the others, or comes nearest."""
    state = state.having(own)
    best, nearest = found.best, found.nearest
    if own.holds and (best is None or _rank(own, rules) < _rank(_of(best), rules)):
        best = state
    if nearest is None or rules.over(own.left) < rules.over(_of(nearest).left):
        nearest = state
    return replace(found, tries=(*found.tries, own), best=best, nearest=nearest)


def _of(state: State) -> Try:
    found = state.found(Try)
    assert found is not None
    return found


def _rank(own: Try, rules: Rules) -> float:
    """Lower is better among tries that hold.

    What is left where a drop leads; else what is lost where that is known, or how far it is from its limits.
    """
    if set(rules.limits) == {DROP}:
        return own.left[rules.lead]
    return -rules.over(own.left) if own.loss is None else own.loss
