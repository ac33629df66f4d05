"""The pass that trains what is left of a model towards the original, on unlabelled inputs.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015); with tensors on the way (Romero et al.,
FitNets, ICLR 2015), restricted to what the student has of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

import numpy as np

from graphprune.analysis.products import find_products
from graphprune.errors import InputError
from graphprune.gradients.errors import Stop
from graphprune.gradients.expansion import prepared
from graphprune.gradients.training import float_constants, trainer
from graphprune.model import Model, load
from graphprune.model.editor import Editor
from graphprune.model.interchange import whole
from graphprune.passes.budget import COSTS
from graphprune.passes.contract import Pass
from graphprune.passes.distill import durations
from graphprune.passes.distill.augment import augmenting
from graphprune.passes.distill.checkpoint import Checkpoint
from graphprune.passes.distill.losses import LOSSES, Measure, measure, with_loss
from graphprune.passes.distill.pool import Pool, pools
from graphprune.passes.distill.seams import find_seams
from graphprune.passes.distill.teaching import Restrict, Teacher, seen, teacher
from graphprune.passes.distill.train import Course, Lesson, Schedule, train
from graphprune.passes.rounds import cutting
from graphprune.passes.state import State
from graphprune.proof import proof
from graphprune.run import sizing
from graphprune.run.runtime import Feeds

STEPS = 100
"""Unless something else is asked for."""
_SHARE, _SPARED, _LEAST = 0.5, 0.9, 1.0
"""Where a job has an end: the share of its time that training gets, what of that is planned for, since steps are
foreseen by a few of them, and seconds that it has at least."""
_RUNS = 6.0
"""A step takes as long as so many runs of its samples, with the search for a rate and the teacher's runs."""
_SAMPLES = 4
"""Runs of the original that tell how its outputs are to be compared."""
TRAINED = ("weights", "all")


@dataclass(frozen=True)
class Distilled:
    """What a distillation did.

    Attributes:
        course: of the training.
        weights: that were trained.
        stopped: weights that have no gradient, with the reason.
        losses: by tensor how it was compared.
        kept: whether anything was gained; else the model is as it was.
    """

    course: Course
    weights: list[str]
    stopped: tuple[Stop, ...]
    losses: Mapping[str, str]
    kept: bool


@dataclass(frozen=True)
class Distill(Pass):
    """Train the model towards the original's outputs, and its tensors on the way.

    Attributes:
        steps: how many steps; 100 where neither steps nor time are given.
        time: how long, as ``5m``, ``90s`` or ``1h``, in place of steps.
        loss: how outputs are compared: ``kl``, ``bernoulli``, ``cosine`` or ``squares``; ``auto`` looks at each.
        train: ``weights`` of products alone, or ``all`` float constants that have a gradient.
        rate: of learning; found by a short search where it is not given.
        batch: samples of a step.
        augment: whether pictures are shifted, cropped and lit otherwise.
        seams: how much tensors on the way count beside the outputs.
        teacher: the file of another original.
        checkpoint: a file that an interrupted training goes on from.
        include, exclude: globs on names of weights.
    """

    name: ClassVar[str] = "distill"

    steps: int | None = None
    time: str | None = None
    loss: str = "auto"
    train: str = "weights"
    rate: float | None = None
    batch: int = 16
    augment: bool = True
    seams: float = 0.1
    teacher: str | None = None
    checkpoint: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def requires(self, state: State) -> Sequence[str]:
        """Inputs are there, and options go together."""
        found = []
        if state.job.calibration is None:
            found.append("it learns on inputs: give them by --calibration")
        if self.steps is not None and self.time is not None:
            found.append("give steps or time, not both")
        if self.steps is not None and self.steps < 1:
            found.append(f"steps must be at least 1, not {self.steps}")
        if self.loss not in LOSSES:
            found.append(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}")
        if self.train not in TRAINED:
            found.append(f"train is {' or '.join(TRAINED)}, not {self.train!r}")
        if self.rate is not None and not self.rate > 0:
            found.append(f"rate must be above 0, not {self.rate}")
        if self.batch < 1:
            found.append(f"batch must be at least 1, not {self.batch}")
        if self.time is not None:
            durations.seconds(self.time)
        ahead = next((one for one in ("cut", "fit", "sparsify") if state.will(one)), None)
        if ahead is not None:
            found.append(f"{ahead!r} is ahead, and would undo what was learnt; put it first")
        return found

    def call(self, state: State) -> State:
        """Train, and list what was trained in the plan."""
        progress = state.progress.begin(self.name)
        original = state.original if self.teacher is None else load(self.teacher)
        student, restrict = state.model, self._restriction(state)
        names = self._trained(state)
        batches = state.batches(original)
        assert batches is not None
        runs = list(batches())
        joins = _free(original) and _free(student)
        train_on, held = pools(runs, joins, self.batch)
        seams = find_seams(student, set(names), _tensors(original)) if self.seams else []
        asked = dict.fromkeys([*seams, *(o for o in student.output_names if o in _tensors(original))])
        with teacher(original, list(asked), student, restrict) as tutor:
            measures = self._measures(tutor, held.all()[:_SAMPLES], student, seams)
            lesson, stopped = self._lesson(student, names, measures, tutor, train_on, held)
            course = train(lesson, self._schedule(state), self._checkpoint(state), progress)
        weights = lesson.trainer.weights()
        losses = {name: one.loss for name, one in measures.items()}
        kept = course.best > 0
        done = Distilled(course, sorted(weights), stopped, losses, kept)
        if not kept:
            return state.having(done).noting(
                f"distillation gained nothing in {course.steps} steps, and the model stays as it was: "
                "give it more inputs or more steps"
            )
        editor = Editor(student)
        for name, value in weights.items():
            editor.replace(name, value)
        entry = {
            "steps": course.steps,
            "best": course.best,
            "rate": course.rate,
            "losses": losses,
            "before": round(course.before, 6),
            "after": round(course.after, 6),
            "weights": sorted(weights),
        }
        return state.having(done, model=editor.finish(), plan=replace(state.plan, distilled=entry))

    def _restriction(self, state: State) -> Restrict:
        if self.teacher is not None:
            return lambda value, name: value
        removal = cutting(state).done.removal
        return lambda value, name: proof.restrict(np.asarray(value), name, removal)

    def _trained(self, state: State) -> list[str]:
        """Names of the constants that are trained."""
        opened, _ = prepared(whole(state.model))
        there = float_constants(opened)
        if self.train == "weights":
            rulings = cutting(state).analysis.rulings
            products = {p.weight for p in find_products(state.model, rulings, shared=True)}
            found = [name for name in there if name in products]
        else:
            found = [name for name, tensor in there.items() if np.prod(tensor.dims) > 1]
        chosen = [n for n in found if self._asked(n)]
        if not chosen:
            raise InputError(f"{state.original.name}: it has no float weight that could be trained")
        return chosen

    def _asked(self, name: str) -> bool:
        wanted = not self.include or any(fnmatchcase(name, glob) for glob in self.include)
        return wanted and not any(fnmatchcase(name, glob) for glob in self.exclude)

    def _measures(
        self, tutor: Teacher, runs: Sequence[Feeds], student: Model, seams: Sequence[str]
    ) -> dict[str, Measure]:
        """How each tensor is compared."""
        found = {}
        shapes = tutor.student_shapes(student, runs[0])
        for name, values in seen(tutor, runs).items():
            if values[0].shape != shapes[name]:
                continue
            inner = name in seams
            one = measure(values, "squares" if inner else self.loss)
            if one is not None:
                found[name] = replace(one, weight=self.seams / len(seams)) if inner else one
        if not any(name not in seams for name in found):
            raise InputError(
                f"{student.name}: none of its outputs holds floats that could be learnt from the original's"
            )
        return found

    def _lesson(
        self,
        student: Model,
        names: Sequence[str],
        measures: Mapping[str, Measure],
        tutor: Teacher,
        train_on: Pool,
        held: Pool,
    ) -> tuple[Lesson, tuple[Stop, ...]]:
        tutor.names = list(measures)
        shapes = held.shapes()
        proto = with_loss(whole(student), measures, shapes)
        made = trainer(proto, names, input_shapes=None)
        if not made.adam.weights:
            raise InputError(f"{student.name}: {made.stopped[0]}")
        augment = augmenting(student) if self.augment else None
        lesson = Lesson(made, tutor.teach, train_on, [tutor.teach(one) for one in held.all()], augment)
        return lesson, made.stopped

    def _schedule(self, state: State) -> Schedule:
        steps = self.steps
        seconds = None if self.time is None else durations.seconds(self.time)
        if steps is None and seconds is None and state.budget is not None:
            seconds = max(_SPARED * state.budget.share(self, state), _LEAST)
        elif steps is None and seconds is None:
            steps = STEPS
        return Schedule(steps, seconds, self.rate, self.batch, state.job.seed)

    def costs(self, state: State) -> Mapping[str, float]:
        """As many steps as there are, beside those by default."""
        return {self.name: COSTS[self.name] * (self.steps or STEPS) / STEPS}

    def spends(self, left: float, each: float) -> float:
        """What its steps take; where neither steps nor time are given, its share of the job."""
        if self.time is not None:
            return durations.seconds(self.time)
        return _SHARE * left if self.steps is None else self.steps * self.batch * _RUNS * each

    def _checkpoint(self, state: State) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        said = hashlib.sha256(repr((replace(self, checkpoint=None), state.job.seed)).encode())
        said.update(whole(state.model).SerializeToString(deterministic=True))
        return Checkpoint(Path(self.checkpoint), said.hexdigest())


def _tensors(model: Model) -> set[str]:
    return {o for node in model.nodes for o in node.output if o}


def _free(model: Model) -> bool:
    """Whether the model leaves the number of samples free."""
    dims = sizing.free_dims(model)
    return bool(dims) and all(own and isinstance(own[0], str) for own in dims.values())
