"""The pass that trains what is left of a model towards the original, on unlabelled inputs.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015); with tensors on the way (Romero et al.,
FitNets, ICLR 2015), restricted to what the student has of them. Where inputs have labels, these are learnt too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphprune.analysis import Analysis
from graphprune.errors import InputError
from graphprune.gradients.expansion import prepared
from graphprune.model import AnyModel, Model, load, paths
from graphprune.model.interchange import whole
from graphprune.passes import budget
from graphprune.passes.budget import COSTS
from graphprune.passes.contract import Pass
from graphprune.passes.distill import checkpoint, custom, goals, labels
from graphprune.passes.distill.augment import augmenting
from graphprune.passes.distill.checkpoint import Checkpoint
from graphprune.passes.distill.goals import Goal
from graphprune.passes.distill.losses import LOSSES, Measure, measure
from graphprune.passes.distill.pool import Pool, pools
from graphprune.passes.distill.seams import find_seams
from graphprune.passes.distill.subjects import TRAINED, Subjects, Untrained, changed, find
from graphprune.passes.distill.teaching import Restrict, Teacher, by_plan, by_removal, seen
from graphprune.passes.distill.train import Course, Lesson, Schedule, train
from graphprune.passes.holding import free
from graphprune.passes.rounds import cutting, unfitted
from graphprune.passes.state import State
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.plan import load as load_plan
from graphprune.run import calibration
from graphprune.run.runtime import Feeds

STEPS = 300
"""Unless something else is asked for."""
_SHARE, _SPARED, _LEAST = 0.5, 0.9, 1.0
"""Where a job has an end: the share of its time that training gets, what of that is planned for, since steps are
foreseen by a few of them, and seconds that it has at least."""
_RUNS = 6.0
"""A step takes as long as so many runs of its samples, with the search for a rate and the teacher's runs."""
_SAMPLES = 4
"""Runs of the original that tell how its outputs are to be compared."""
_NOTHING = 1e-8
"""A loss below this is rounding, from which nothing can be learnt."""
_UNDOING = ("cut", "fit", "sparsify")


@dataclass(frozen=True)
class Distilled:
    """What a distillation did.

    Attributes:
        course: of the training.
        weights: that were trained.
        untrained: weights that were not, with the reason.
        losses: by tensor how it was compared; ``label:`` and an output's name for labels.
        skipped: outputs that were not compared, with the reason.
        kept: whether anything was gained; else the model is as it was.
    """

    course: Course
    weights: list[str]
    untrained: tuple[Untrained, ...] = ()
    losses: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    kept: bool = True


@dataclass(frozen=True)
class Distill(Pass):
    """Train the model towards the original's outputs, and its tensors on the way.

    Attributes:
        steps: how many steps; 300 where neither steps nor time are given.
        time: how long, as ``5m``, ``90s`` or ``1h``, in place of steps.
        loss: how outputs are compared: ``kl``, ``bernoulli``, ``cosine`` or ``squares``; ``auto`` looks at each. Or
            one's own, in place of all other terms: an ONNX file, or ``module:function`` (see ``custom``).
        train: ``weights`` of products alone, or ``all`` float constants that have a gradient.
        rate: of learning; found by a short search where it is not given.
        batch: samples of a step.
        augment: whether pictures are shifted, zoomed, lit otherwise and mixed; not where there are labels.
        seams: how much tensors on the way count beside the outputs.
        labels: the share of labels in the loss, where inputs have any (see ``graphprune.run.samples``).
        teacher: the file of another original.
        plan: the plan by which the model was made of that; without it tensors of equal name and shape are compared.
        checkpoint: a file that an interrupted training goes on from.
        include, exclude: globs on names of weights.
    """

    name: ClassVar[str] = "distill"

    steps: int | None = None
    time: str | None = None
    loss: str | Callable[..., Any] = "auto"
    train: str = "weights"
    rate: float | None = None
    batch: int = 16
    augment: bool = True
    seams: float = 0.1
    labels: float = 0.5
    teacher: str | AnyModel | None = None
    plan: str | Plan | None = None
    checkpoint: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def requires(self, state: State) -> Sequence[str]:
        """Inputs are there, and options go together."""
        found = [why for wrong, why in self._wrong(state) if wrong]
        if custom.is_function(self.loss):
            custom.function(self.loss)
        elif custom.is_file(self.loss):
            custom.File.read(str(self.loss))
        elif self.loss not in LOSSES:
            found.append(f"there is no loss {self.loss!r}; choose from {', '.join(LOSSES)}, FILE.onnx, module:function")
        if self.time is not None:
            budget.seconds(self.time)
        if isinstance(self.teacher, str) and not Path(self.teacher).is_file():
            raise InputError(f"{self.teacher}: no such file")
        if self.checkpoint is not None:
            Checkpoint(Path(self.checkpoint), "").check()
        ahead = next((one.name for one in state.ahead if one.name in _UNDOING), None)
        if ahead is not None and not state.will(self.name):
            found.append(f"{ahead!r} is ahead, and would undo what was learnt; put it first")
        return found

    def _wrong(self, state: State) -> list[tuple[bool, str]]:
        """What may be wrong with the options, each with whether it is."""
        return [
            (state.job.calibration is None, "it learns on inputs: give them by --calibration"),
            (self.steps is not None and self.time is not None, "give steps or time, not both"),
            (self.steps is not None and self.steps < 1, f"steps must be at least 1, not {self.steps}"),
            (self.train not in TRAINED, f"train is {' or '.join(TRAINED)}, not {self.train!r}"),
            (self.rate is not None and not self.rate > 0, f"rate must be above 0, not {self.rate}"),
            (self.batch < 1, f"batch must be at least 1, not {self.batch}"),
            (not 0 <= self.labels <= 1, f"labels must be between 0 and 1, not {self.labels}"),
            (not self.seams >= 0, f"seams must not be below 0, but is {self.seams}"),
            (
                self.plan is not None and self.teacher is None,
                "plan is of the teacher: give that too",
            ),
        ]

    def declares(self) -> None:
        """The teacher, a plan and a loss are read, a checkpoint is written."""
        if self.teacher is not None:
            load(self.teacher)  # which declares its files, weights outside of it too
        paths.reads("the plan of the student", self.plan if isinstance(self.plan, str) else None)
        paths.reads("the loss", str(self.loss) if custom.is_file(self.loss) else None)
        paths.writes("the checkpoint", self.checkpoint, again=True)

    def call(self, state: State) -> State:
        """Train, and list what was trained in the plan."""
        state = unfitted(state)
        progress = state.progress.begin(self.name)
        original = state.original if self.teacher is None else load(self.teacher)
        student, analysis = state.model, state.analysis()
        subjects = find(analysis, prepared(whole(student))[0], self.train, self.include, self.exclude)
        runs = list(self._batches(state, original))
        tutor = Teacher(original, student, self._restriction(state, original))
        parts = self._parts(student, tutor, runs, state.job.seed)
        lesson, goal = self._lesson(student, subjects, tutor, parts, runs)
        stopped = [Untrained.of(stop) for stop in lesson.trainer.stopped]
        kept = self._checkpoint(state, original, runs)
        before = lesson.trainer.loss(lesson.held)
        if not np.isfinite(before):
            raise InputError(
                f"{student.name}: its loss on inputs that are held out is {before}, and nothing can be learnt from "
                "that: see what it makes of the inputs"
            )
        if goal.distance and before < _NOTHING:
            course = Course(0.0, 0, before, before, looks=[(0, before)])
        else:
            course = train(lesson, self._schedule(state), kept, progress)
        weights = lesson.trainer.weights()
        untrained = (*subjects.untrained, *stopped)
        done = Distilled(course, sorted(weights), untrained, goal.losses, goal.skipped, course.best > 0)
        if kept is not None:
            if kept.damaged:
                state = state.noting(f"{kept.path} was damaged: the training began again")
            paths.behind(kept.drop)
        return self._after(state, analysis, done, weights)

    def _after(self, state: State, analysis: Analysis, done: Distilled, weights: Feeds) -> State:
        """The state with what was learnt, where anything was."""
        course = done.course
        if not course.steps:
            return state.having(done).noting("distillation: the model makes what the teacher makes: nothing to learn")
        if not done.kept:
            return state.having(done).noting(
                f"distillation gained nothing in {course.steps} steps, and the model stays as it was: "
                "give it more inputs or more steps"
            )
        entry = {
            "steps": course.steps,
            "best": course.best,
            "rate": course.rate,
            "losses": dict(done.losses),
            "before": round(course.before, 6),
            "after": round(course.after, 6),
            "weights": done.weights,
        }
        model = changed(state.model, analysis.model, weights)
        return state.having(done, model=model, plan=replace(state.plan, distilled=entry))

    def _batches(self, state: State, original: Model) -> Iterable[Feeds]:
        job = state.job
        assert job.calibration is not None
        runnable = original if self.teacher is not None else state.analysis(original).model.runnable
        found = calibration.batches(job.calibration, runnable, job.input_shapes, job.seed, labels=True)
        most = None if state.budget is None else state.budget.samples
        return found() if most is None else calibration.first(found, most)

    def _restriction(self, state: State, original: Model) -> Restrict:
        if self.plan is not None:
            return by_plan(self.plan, original, state.job)
        if self.teacher is not None:
            return lambda value, name: value
        return by_removal(cutting(state).done.removal)

    def _measures(
        self, tutor: Teacher, runs: Sequence[Feeds], student: Model, seams: Sequence[str], labelled: bool
    ) -> dict[str, Measure]:
        """How each tensor is compared."""
        found = {}
        shapes = tutor.student_shapes(student, runs[0])
        for name, values in seen(tutor, runs).items():
            if values[0].shape != shapes[name]:
                continue
            inner = name in seams
            one = measure(values, "squares" if inner else str(self.loss))
            if one is not None:
                found[name] = replace(one, weight=self.seams / len(seams)) if inner else one
        if not labelled and not any(name not in seams for name in found):
            raise InputError(
                f"{student.name}: none of its outputs holds floats that could be learnt from the original's; it has "
                f"{', '.join(student.output_names)}, {tutor.original.name} has {', '.join(tutor.original.output_names)}"
            )
        return found

    def _parts(self, student: Model, tutor: Teacher, runs: Sequence[Feeds], seed: int) -> tuple[Pool, Pool]:
        """What is trained on, and what is held out; joined where both models run on what is."""
        parts = pools(runs, free(tutor.original) and free(student), self.batch, seed)
        if not parts[1].joins:
            return parts
        shared = [name for name in student.output_names if name in _tensors(tutor.original)]
        try:
            tutor.ask(shared)
            tutor.values(parts[1].all()[0])
            tutor.answers(student, shared, parts[1].all()[:1])
        except InputError:  # free as it is declared, it takes some numbers of samples only
            return pools(runs, False, self.batch, seed)
        return parts

    def _lesson(
        self,
        student: Model,
        subjects: Subjects,
        tutor: Teacher,
        parts: tuple[Pool, Pool],
        runs: Sequence[Feeds],
    ) -> tuple[Lesson, Goal]:
        train_on, held = parts
        goal = self._goal(student, subjects, tutor, held, runs)
        shapes = held.shapes() if held.shapes() == train_on.shapes() else None
        shapes = shapes and {name: value.shape for name, value in tutor.own(held.all()[0]).items()}
        made = goal.trainer(student, subjects, shapes)
        augment = augmenting(student) if self.augment and not _labelled(goal) else None

        def teach(feeds: Feeds) -> Feeds:
            return goal.teach(tutor, feeds)

        return Lesson(made, teach, train_on, [teach(one) for one in held.all()], augment), goal

    def _goal(self, student: Model, subjects: Subjects, tutor: Teacher, held: Pool, runs: Sequence[Feeds]) -> Goal:
        """What is to be learnt; the tutor is asked for as much from then on."""
        others = _others(student)
        there, some = _tensors(tutor.original).difference(others), held.all()[:_SAMPLES]
        outputs = [name for name in student.output_names if name not in others]
        shared = [name for name in student.output_names if name in there]
        if custom.is_file(self.loss) or custom.is_function(self.loss):
            goal = goals.of_own(self.loss, tutor.answers(student, outputs, some), sorted(there), runs)
            tutor.ask(shared if goal.file is None else goal.file.teacher)
            return goal
        seams = find_seams(student, set(subjects.names), there) if self.seams else []
        tutor.ask(list(dict.fromkeys([*seams, *shared])))
        made = tutor.answers(student, [*dict.fromkeys([*tutor.names, *outputs])], some)
        known = labels.read(some, {name: made[name] for name in outputs}) if self.labels else None
        if known is not None:
            known.check(runs)
        measures, taught = self._measures(tutor, some, student, seams, known is not None), seen(tutor, some)
        measures = goals.steady(measures, made, taught)
        left = goals.skipped([name for name in outputs if name not in measures], made, taught)
        measures, known = goals.weighed(measures, known, self.labels)
        tutor.ask(list(measures))
        return Goal(measures, known, skipped={**left, **dict.fromkeys(others, "it is no tensor")})

    def _schedule(self, state: State) -> Schedule:
        steps = self.steps
        seconds = None if self.time is None else budget.seconds(self.time)
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
            return budget.seconds(self.time)
        return _SHARE * left if self.steps is None else self.steps * self.batch * _RUNS * each

    def _checkpoint(self, state: State, original: Model, runs: Sequence[Feeds]) -> Checkpoint | None:
        """Where the training is kept, for this model, these inputs and these options alone."""
        if self.checkpoint is None:
            return None
        loss = custom.function(self.loss)[1] if custom.is_function(self.loss) else self.loss
        plain = replace(self, checkpoint=None, teacher=None, plan=None, loss=loss)
        said = hashlib.sha256(repr((plain, state.job.seed, original.sha256)).encode())
        said.update(whole(state.model).SerializeToString(deterministic=True))
        said.update(b"" if self.plan is None else repr(load_plan(self.plan)).encode())
        said.update(load(str(self.loss)).sha256.encode() if custom.is_file(self.loss) else b"")
        for feeds in runs:
            for name, value in sorted(feeds.items()):
                said.update(f"{name} {value.dtype} {value.shape}".encode())
                said.update(np.ascontiguousarray(value).tobytes())
        return Checkpoint(Path(self.checkpoint), said.hexdigest(), checkpoint.SECONDS)


def _labelled(goal: Goal) -> bool:
    """Whether anything that is learnt is of inputs as they are, which pictures that were moved are not."""
    return goal.labels is not None or (goal.file is not None and bool(goal.file.labels))


def _tensors(model: Model) -> set[str]:
    return {o for node in model.nodes for o in node.output if o}


def _others(model: Model) -> list[str]:
    """Outputs that are no tensors: sequences, maps."""
    return [o.name for o in model.graph.output if not o.type.HasField("tensor_type")]
