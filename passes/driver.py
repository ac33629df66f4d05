"""Runs the passes of a recipe, one after the other, on one model."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from graphprune.errors import InputError, UserCodeError
from graphprune.passes import budget, kept
from graphprune.passes.contract import Again, Pass
from graphprune.passes.replay import Replayed
from graphprune.passes.state import State
from graphprune.progress import Progress, Retitled
from graphprune.rewrite import replay
from graphprune.run import usercode
from graphprune.run.calibration import Batches
from graphprune.run.refusal import blamed

PROOF = "prove"
LOG = logging.getLogger("graphprune")
"""Passes say here what they did; who wants to read it gives it a handler."""


class Clock:
    """Seconds by step, and the progress of a job through the phases that are planned.

    Args:
        progress: who watches.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str, title: str | None = None) -> None:
        """A step has ended; of several rounds it has a title of its own, and seconds add up."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
        self.progress.end(title or name)


def phases(passes: Sequence[Pass], state: State, writes: bool) -> list[str]:
    """What is to come, each once.

    Args:
        passes: the passes.
        state: before the first of them.
        writes: whether the result is written.
    """
    found = ["load", "analyze"]
    for one, own in zip(passes, titles(passes, state), strict=True):
        found += [own.get(name, name) for name in _own_phases(one, state)]
    return list(dict.fromkeys([*found, *["write"] * writes]))


def _own_phases(one: Pass, state: State) -> list[str]:
    return [*one.phases(state), *([PROOF] if one.proves(state) else [])]


def costs(passes: Sequence[Pass], state: State) -> dict[str, float]:
    """What phases cost beside each other, by what they are called in the job."""
    found = dict(budget.COSTS)
    for one, own in zip(passes, titles(passes, state), strict=True):
        told = {PROOF: budget.COSTS[PROOF], **budget.costs(one, state)}
        found |= {own.get(phase, phase): cost for phase, cost in told.items()}
    return found


def _rounds(passes: Sequence[Pass]) -> list[int]:
    """For each pass the number of its round, from 1 on.

    A round ends where more is chosen behind a cut, or where weights become sparse again.
    """
    number, ended, found = 1, "", []
    for one in passes:
        if (one.chooses and ended == "cut") or (one.name == "sparsify" and ended == "sparsify"):
            number, ended = number + 1, ""
        ended = one.name if one.name in ("cut", "sparsify") else ended
        found.append(number)
    return found


def titles(passes: Sequence[Pass], state: State) -> list[dict[str, str]]:
    """For each pass what its phases are called, where other rounds have them too."""
    rounds = _rounds(passes)
    where: dict[str, set[int]] = {}
    for one, own in zip(passes, rounds, strict=True):
        for name in _own_phases(one, state):
            where.setdefault(name, set()).add(own)
    return [
        {name: f"round {own}: {name}" for name in _own_phases(one, state) if len(where[name]) > 1}
        for one, own in zip(passes, rounds, strict=True)
    ]


def prepared(passes: Sequence[Pass], state: State, resume: str | os.PathLike[str] | None, begun: float) -> State:
    """The state with what the time allows, and what an earlier run of the job has left.

    Args:
        passes: the passes.
        state: before the first pass.
        resume: a folder for finished parts.
        begun: when the job began, by ``time.monotonic``.

    Raises:
        InputError: ONNX Runtime cannot run the model on the calibration inputs.
    """
    job, batches = state.job, state.batches(state.original)
    allowed = None if job.time is None else budget.Budget(job.time, begun)
    state = replace(state, budget=allowed)
    if batches is not None and resume is not None:
        about = kept.about(state.original, batches, job.input_shapes, job.allow_io, job.seed, job.time)
        state = replace(state, kept=kept.Kept(Path(resume), about))
    if batches is not None and allowed is not None:
        measured = _measured(passes, state, batches, allowed)
        state = state.noting(measured.told(allowed))
        state = replace(state, budget=replace(allowed, samples=measured.samples))
    return state


def _measured(passes: Sequence[Pass], state: State, batches: Batches, allowed: budget.Budget) -> budget.Measured:
    """What the job can afford; what an interrupted run could, so that what it left fits."""
    where = "samples", *passes
    before = None if state.kept is None else state.kept.read(*where)
    if before is not None:
        return budget.Measured(int(before["samples"]), int(before["there"]), float(before["each"]))
    found = budget.measure(state.analysis(state.original), batches, allowed, passes, max(_rounds(passes), default=1))
    if state.kept is not None:
        state.kept.write({k: np.asarray(v) for k, v in vars(found).items()}, *where)
    return found


def drive(passes: Sequence[Pass], state: State, clock: Clock) -> State:
    """The state behind all passes.

    Args:
        passes: the passes.
        state: what they begin with.
        clock: is told when each has ended, and when it was made sure of.

    Raises:
        GraphpruneError: what a pass raises.
    """
    whole, named = state.progress, titles(passes, state)
    place, rerun, chosen = 0, 1, next((k for k, one in enumerate(passes) if one.begins), 0)
    start = state
    while place < len(passes):
        one, own = passes[place], named[place]
        if rerun > 1 and place >= chosen:
            own = {name: f"try {rerun}: {own.get(name, name)}" for name in _own_phases(one, state)}
        start = state if place == chosen else start
        state = replace(state, ahead=passes[place + 1 :], progress=Retitled(whole, own) if own else whole)
        try:
            state = _one(one, state, own, clock)
        except Again as again:
            clock.lap(one.name, own.get(one.name))
            place, rerun, state = chosen, rerun + 1, start.having(*again.findings)
            continue
        place += 1
    return state


def _one(one: Pass, state: State, own: Mapping[str, str], clock: Clock) -> State:
    """The state behind one pass, whose phases are called otherwise where there are several rounds or tries."""
    if begun := next(iter(one.phases(state)), None):
        state.progress.begin(begun)
    with _naming(state), _owned(one), blamed(state.original, state.job.input_shapes):
        after = one.call(state)
        clock.lap(one.name, own.get(one.name))
        after = one.ensures(state, after)
    if one.proves(after):
        clock.lap(PROOF, own.get(PROOF))
    _log(one, state, after)
    return after


def _log(one: Pass, before: State, after: State) -> None:
    """Say what a pass did: at INFO what the plan has more of, at DEBUG its options and what it found."""
    if not LOG.isEnabledFor(logging.INFO):
        return
    new = {
        what: len(getattr(after.plan, what)) - len(getattr(before.plan, what))
        for what in ("blocks", "groups", "slices", "compensated", "sparsity")
    }
    done = [f"{count} {what}" for what, count in new.items() if count > 0]
    changed = "the model changed" if after.model is not before.model else "the model is as before"
    LOG.info("%s: %s: %s; %s", after.original.name, one.name, ", ".join(done) or "nothing in the plan", changed)
    found = [kind.__name__ for kind, own in after.findings.items() if before.findings.get(kind) is not own]
    LOG.debug("%s: %s: found %s", after.original.name, one, ", ".join(found) or "nothing")


def check_requirements(passes: Sequence[Pass], state: State, places: Sequence[str] = ()) -> None:
    """Ask all passes what they require.

    Args:
        passes: the passes.
        state: before the first of them; nothing of it has been looked at yet.
        places: where each stands in the file that they were read from.

    Raises:
        InputError: a pass cannot run in this job; says which, and why.
    """
    for number, one in enumerate(passes):
        where = f"{places[number]}: " if places else ""
        try:
            with _owned(one):
                reasons = one.requires(replace(state, ahead=passes[number + 1 :]))
        except InputError as error:
            if not where or isinstance(error, UserCodeError):
                raise
            raise InputError(f"{where}pass {one.name!r}: {error}") from error
        for reason in reasons:
            raise InputError(f"{where}pass {one.name!r}: {reason}")


def _owned(one: Pass) -> AbstractContextManager[None]:
    """What a pass of another package raises is told as that package's."""
    module = type(one).__module__
    return nullcontext() if module.startswith("graphprune.") else usercode.told(f"pass {one.name!r} of {module}")


def _naming(state: State) -> AbstractContextManager[None]:
    """Where a plan is applied, what goes wrong is told as that of the plan."""
    replayed = state.found(Replayed)
    return nullcontext() if replayed is None else replay.naming(replayed.plan)
