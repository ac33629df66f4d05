"""What a student should learn: tensors of the original, labels, or what a loss of the user's asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphprune.errors import InputError
from graphprune.gradients.training import Trainer, judged, trainer
from graphprune.model import Model
from graphprune.model.interchange import whole
from graphprune.passes.distill import custom
from graphprune.passes.distill.labels import Labels
from graphprune.passes.distill.losses import TEACHER, Measure, with_loss
from graphprune.passes.distill.subjects import Subjects
from graphprune.passes.distill.teaching import Teacher
from graphprune.relation import Shape, Values
from graphprune.run.runtime import Feeds
from graphprune.run.samples import LABEL


@dataclass(frozen=True)
class Goal:
    """What is learnt.

    Attributes:
        measures: by tensor how it is compared with the original's.
        labels: what is known to be right; None where nothing is.
        file: a loss of the user's, in place of both.
        function: the same as a function.
        outputs: of the student that the function is given.
        skipped: outputs that are not compared, and why.
    """

    measures: Mapping[str, Measure] = field(default_factory=dict)
    labels: Labels | None = None
    file: custom.File | None = None
    function: Any = None
    outputs: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def distance(self) -> bool:
        """Whether it is a distance from the teacher alone, which is zero where there is nothing to learn."""
        return self.file is None and self.function is None and self.labels is None

    @property
    def losses(self) -> dict[str, str]:
        """By tensor how it is compared; of the user's losses what they are called."""
        if self.file is not None:
            return dict.fromkeys(self.file.student, self.file.model.name)
        if self.function is not None:
            return dict.fromkeys(self.outputs, custom.function(self.function)[1])
        found = {name: one.loss for name, one in self.measures.items()}
        labels = {} if self.labels is None else self.labels.measures
        return {**found, **{LABEL + name: _LABELLED.get(one.loss, one.loss) for name, one in labels.items()}}

    def teach(self, tutor: Teacher, feeds: Feeds) -> Feeds:
        """Inputs of the student, with what it should make of them."""
        made = tutor.values(feeds)
        names = self.measures if self.function is None else made
        found = {**tutor.own(feeds), **{TEACHER + n: np.asarray(made[n], np.float32) for n in names}}
        if self.labels is not None:
            found |= self.labels.targets(feeds)
        return found | ({} if self.file is None else dict(self.file.targets(feeds, made)))

    def trainer(self, student: Model, subjects: Subjects, shapes: Mapping[str, Shape] | None) -> Trainer:
        """The student, ready for training.

        Raises:
            InputError: none of its weights has a gradient; says why of the first.
        """
        proto = whole(student)
        made: Trainer
        if self.function is not None:
            judge = custom.judge(self.function)
            made = judged(proto, subjects.names, self.outputs, judge, free=subjects.free)
        else:
            labels = {} if self.labels is None else self.labels.measures
            loss = with_loss(proto, self.measures, shapes, labels, self.file)
            made = trainer(loss, subjects.names, free=subjects.free)
        if not made.adam.weights:
            raise InputError(f"{student.name}: {made.stopped[0]}")
        return made


_LABELLED = {"entropy": "cross entropy", "logits": "cross entropy"}


def weighed(measures: Mapping[str, Measure], labels: Labels | None, share: float) -> tuple[dict[str, Measure], Any]:
    """The original and labels, each with its share."""
    if labels is None or not share:
        return dict(measures), None
    scaled = {name: replace(one, weight=one.weight * share) for name, one in labels.measures.items()}
    rest = {name: replace(one, weight=one.weight * (1 - share)) for name, one in measures.items()} if share < 1 else {}
    return rest, replace(labels, measures=scaled)


def of_own(loss: Any, student: Mapping[str, Sequence[Values]], tensors: Sequence[str], runs: Sequence[Feeds]) -> Goal:
    """What a loss of the user's asks for.

    Args:
        loss: an ONNX file, a function, or the name of one.
        student: by output what the student makes.
        tensors: of the original.
        runs: all inputs, with labels.

    Raises:
        InputError: the loss reads what is not there.
    """
    if custom.is_file(loss):
        file = custom.File.read(loss)
        file.check(tensors, runs)
        return Goal(file=file)
    outputs = [name for name, values in student.items() if values[0].dtype.kind == "f"]
    return Goal(function=loss, outputs=outputs)


def steady(
    measures: Mapping[str, Measure], student: Mapping[str, Sequence[Values]], teacher: Mapping[str, Sequence[Values]]
) -> dict[str, Measure]:
    """The tensors that are of one shape in both models, whatever the inputs."""
    return {
        name: one
        for name, one in measures.items()
        if all(a.shape == b.shape for a, b in zip(student[name], teacher[name], strict=True))
    }


def skipped(
    outputs: Sequence[str], student: Mapping[str, Sequence[Values]], teacher: Mapping[str, Sequence[Values]]
) -> dict[str, str]:
    """Why outputs are not compared."""
    return {name: _why(student[name], teacher.get(name)) for name in outputs}


def _why(own: Sequence[Values], other: Sequence[Values] | None) -> str:
    if other is None:
        return "the teacher has no tensor of this name"
    differ = next(((a.shape, b.shape) for a, b in zip(own, other, strict=True) if a.shape != b.shape), None)
    if differ is not None:
        here, there = ("x".join(map(str, shape)) or "one number" for shape in differ)
        return f"it is of shape {here} here and {there} in the teacher"
    if own[0].dtype.kind != "f":
        return f"it holds {own[0].dtype}"
    return "what the teacher makes of it is not finite, or one value throughout"
