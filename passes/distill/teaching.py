"""The original as a teacher: what it makes of inputs, without what the student has lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnxruntime as ort

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes.contract import Pass
from graphprune.passes.cut import Cut
from graphprune.passes.depth.remove import RemoveBlocks
from graphprune.passes.replay import ReplayBlocks, ReplayGroups
from graphprune.passes.rounds import cutting
from graphprune.passes.state import Job, State
from graphprune.proof import proof
from graphprune.relation import Values
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.plan import load as load_plan
from graphprune.rewrite.removal import Removal
from graphprune.run.runtime import Feeds, exposing, fastest, run, session

Restrict = Callable[[Values, str], Values]
"""A tensor of the original, by its values and its name, without what the student has lost."""


class Teacher:
    """A model that is run for what another should make.

    Args:
        original: the teacher.
        student: the model in training.
        restrict: takes off what the student has lost.

    Raises:
        InputError: the student reads what the teacher does not.
    """

    def __init__(self, original: Model, student: Model, restrict: Restrict) -> None:
        self.original, self.restrict, self.names = original, restrict, list[str]()
        self.inputs, self.reads = ({i.name for i in model.inputs} for model in (student, original))
        if strange := next((i.name for i in student.inputs if i.name not in self.reads), None):
            there = ", ".join(sorted(self.reads))
            raise InputError(
                f"{student.name}: its input {strange!r} is none of the teacher's ({original.name}), which has {there}"
            )
        self._active: ort.InferenceSession | None = None
        self._gives: set[str] = set()

    def ask(self, names: Sequence[str]) -> None:
        """Say which tensors are wanted from now on."""
        self.names = list(names)
        if not self._gives.issuperset(names):
            self._gives = set(names)
            level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            with session(exposing(self.original, names), level, provider=fastest()) as active:
                self._active = active

    def own(self, feeds: Feeds) -> Feeds:
        """The inputs of the student, without labels."""
        return {name: self.restrict(value, name) for name, value in feeds.items() if name in self.inputs}

    def values(self, feeds: Feeds) -> dict[str, Values]:
        """What the original makes, by tensor."""
        if not self.names or self._active is None:
            return {}
        found = run(self._active, {n: v for n, v in feeds.items() if n in self.reads}, self.names)
        return {name: self.restrict(value, name) for name, value in zip(self.names, found, strict=True)}

    def student_shapes(self, student: Model, feeds: Feeds) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors as the student makes them."""
        return {name: found[0].shape for name, found in self.answers(student, self.names, [feeds]).items()}

    def answers(self, student: Model, names: Sequence[str], runs: Sequence[Feeds]) -> dict[str, list[Values]]:
        """What the student makes of some inputs, by tensor."""
        found: dict[str, list[Values]] = {name: [] for name in names}
        if not found:  # no names are all outputs to ONNX Runtime
            return found
        with session(exposing(student, names)) as active:
            for feeds in runs:
                for name, value in zip(names, run(active, self.own(feeds), names), strict=True):
                    found[name].append(value)
        return found


def seen(teacher: Teacher, runs: Sequence[Feeds]) -> Mapping[str, list[Values]]:
    """What the original makes of some inputs, by tensor."""
    found: dict[str, list[Values]] = {}
    for feeds in runs:
        for name, value in teacher.values(feeds).items():
            found.setdefault(name, []).append(value)
    return found


def by_plan(plan: str | Plan, original: Model, job: Job) -> Restrict:
    """What a tensor of a model comes to without what a plan removes from it.

    Args:
        plan: the plan, or its file.
        original: the model that it is of.
        job: what holds for the whole.

    Raises:
        InputError: the plan does not fit the model; says at which group.
    """
    read = load_plan(plan)
    shapes = {name: tuple(sizes) for name, sizes in read.model["witness"].items()}
    passes: list[Pass] = [ReplayBlocks(read), *([RemoveBlocks()] if read.blocks else [])]
    passes += [ReplayGroups(), Cut()] if read.groups else []
    own = replace(job, input_shapes=shapes, allow_io=bool(read.interface), prove=False)
    with replay.naming(read):
        replay.check_inputs(read, original)
        state = State(original, original, Plan({}), own)
        for place, one in enumerate(passes):
            state = one.ensures(state, one.call(replace(state, ahead=passes[place + 1 :])))
    return by_removal(cutting(state).done.removal)


def by_removal(removal: Removal) -> Restrict:
    """What a tensor comes to without what was removed from it."""
    return lambda value, name: proof.restrict(np.asarray(value), name, removal)
