"""The original as a teacher: what it makes of inputs, without what the student has lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnxruntime as ort

from graphprune.model import Model
from graphprune.passes.distill.losses import TEACHER
from graphprune.relation import Values
from graphprune.run.runtime import Feeds, exposing, run, session

Restrict = Callable[[Values, str], Values]
"""A tensor of the original, by its values and its name, without what the student has lost."""


class Teacher:
    """A model that is run for what another should make.

    Args:
        active: its session.
        names: tensors that are asked for.
        inputs: of the student.
        restrict: takes off what the student has lost.
    """

    def __init__(
        self, active: ort.InferenceSession, names: Sequence[str], inputs: Sequence[str], restrict: Restrict
    ) -> None:
        self.active, self.names, self.inputs, self.restrict = active, list(names), set(inputs), restrict

    def values(self, feeds: Feeds) -> dict[str, Values]:
        """What the original makes, by tensor."""
        found = run(self.active, feeds, self.names)
        return {name: self.restrict(value, name) for name, value in zip(self.names, found, strict=True)}

    def student_shapes(self, student: Model, feeds: Feeds) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors as the student makes them."""
        own = {name: self.restrict(value, name) for name, value in feeds.items() if name in self.inputs}
        with session(exposing(student, self.names)) as active:
            return {name: v.shape for name, v in zip(self.names, run(active, own, self.names), strict=True)}

    def teach(self, feeds: Feeds) -> Feeds:
        """Inputs of the student, with what the original makes of them."""
        own = {name: self.restrict(value, name) for name, value in feeds.items() if name in self.inputs}
        made = self.values(feeds)
        return {**own, **{TEACHER + n: np.asarray(v, np.float32) for n, v in made.items()}}


@contextmanager
def teacher(original: Model, names: Sequence[str], student: Model, restrict: Restrict) -> Iterator[Teacher]:
    """A teacher of a student.

    Args:
        original: the teacher.
        names: tensors of it that are asked for.
        student: the model in training.
        restrict: takes off what the student has lost.
    """
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with session(exposing(original, names), level) as active:
        yield Teacher(active, names, [i.name for i in student.inputs], restrict)


def seen(teacher: Teacher, runs: Sequence[Feeds]) -> Mapping[str, list[Values]]:
    """What the original makes of some inputs, by tensor."""
    found: dict[str, list[Values]] = {}
    for feeds in runs:
        for name, value in teacher.values(feeds).items():
            found.setdefault(name, []).append(value)
    return found
