"""What a job is about while it runs: the model, the plan, and what its passes have found so far.

A state is never changed in place: each pass takes one and gives another (see ``graphprune.passes.contract``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from graphprune.analysis import Analysis, analyze
from graphprune.analysis.inputs import check_room
from graphprune.model import Model
from graphprune.passes.budget import Budget
from graphprune.passes.kept import Kept
from graphprune.progress import Progress
from graphprune.relation import Shape
from graphprune.rewrite.plan import Plan
from graphprune.run import calibration, samples
from graphprune.run.calibration import Batches, Source
from graphprune.run.runtime import Feeds

if TYPE_CHECKING:
    from graphprune.passes.contract import Pass

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What holds for a whole job, whatever its passes do.

    Attributes:
        input_shapes: sizes for inputs whose free dims cannot be guessed.
        allow_io: let inputs and outputs of the graph shrink: those that carry a state round (a cache of keys and
            values), and others where a pass names their group.
        prove: compare what was removed with the masked original before anything is written.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated``; None where there are none.
        seed: of generated inputs, and of everything that is drawn by chance.
        time: seconds that it may take: with calibration inputs they say how many of these are used.
    """

    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    allow_io: bool = False
    prove: bool = True
    calibration: Source | None = None
    seed: int = 0
    time: float | None = None

    def __post_init__(self) -> None:
        # passes go through the inputs again and again, and a generator is used up by the first
        if self.calibration is not None:
            object.__setattr__(self, "calibration", samples.kept(self.calibration))


@dataclass(frozen=True)
class State:
    """A job between two of its passes.

    Attributes:
        original: the model as it was given.
        model: the model as it is now.
        plan: what was chosen, and what was done.
        job: what holds for all passes.
        progress: is told of every phase and of its steps.
        ahead: the passes that are still to come.
        findings: what passes have found, by type; one of each.
        analyses: of models met so far, with the model itself, by its identity.
        inputs: calibration inputs of models met so far, by the identity of the model.
        budget: the time that is left, None where there is no end.
        kept: where finished parts are kept for another run of the same job, None where they are not.
        told: the recipe, as the model that is written will hold it.
    """

    original: Model
    model: Model
    plan: Plan
    job: Job = field(default_factory=Job)
    progress: Progress = field(default_factory=Progress, repr=False, compare=False)
    ahead: Sequence[Pass] = ()
    findings: Mapping[type, Any] = field(default_factory=dict)
    analyses: dict[int, tuple[Model, Analysis]] = field(default_factory=dict, repr=False, compare=False)
    inputs: dict[int, Batches] = field(default_factory=dict, repr=False, compare=False)
    budget: Budget | None = None
    kept: Kept | None = None
    told: str = ""

    def analysis(self, model: Model | None = None) -> Analysis:
        """The analysis of the model as it is now, or of another; made once.

        Raises:
            InputError: it runs at none of the sizes tried.
        """
        model = self.model if model is None else model
        if id(model) not in self.analyses:
            given = calibration.still(self.job.input_shapes, model) if model is not self.original else None
            shapes = self.job.input_shapes if given is None else given
            self.analyses[id(model)] = model, analyze(model, shapes, allow_io=self.job.allow_io)
        return self.analyses[id(model)][1]

    def remember(self, model: Model, analysis: Analysis) -> None:
        """Keep an analysis that was made elsewhere."""
        self.analyses[id(model)] = model, analysis

    def found(self, kind: type[T]) -> T | None:
        """What a pass has found, None where none has."""
        return self.findings.get(kind)

    def having(self, *findings: object, **changes: Any) -> State:
        """The state with more findings, and other changes."""
        return replace(self, findings={**self.findings, **{type(one): one for one in findings}}, **changes)

    def without(self, kind: type) -> State:
        """The state without what was found of a type, since it holds no more."""
        return replace(self, findings={k: v for k, v in self.findings.items() if k is not kind})

    def noting(self, *notes: str) -> State:
        """The state with notes for the user."""
        return self.having(Notes((*(self.found(Notes) or Notes()).lines, *notes)))

    def will(self, name: str) -> bool:
        """Whether a pass of a name is ahead."""
        return any(one.name == name for one in self.ahead)

    def bounds(self) -> dict[str, int]:
        """What the passes ahead ask of widths: by group id what they must stay multiples of."""
        wanted: dict[str, int] = {}
        for one in self.ahead:
            for group, multiple in one.bounds(self).items():
                wanted[group] = max(wanted.get(group, 1), multiple)
        return wanted

    def batches(self, model: Model) -> Batches | None:
        """The calibration inputs of a model, None where the job has none.

        Raises:
            InputError: inputs are to be generated, and the model runs at no size that was tried.
        """
        if self.job.calibration is None:
            return None
        if id(model) not in self.inputs:
            runnable = self.analysis(model).model.runnable
            made = calibration.batches(self.job.calibration, runnable, self.job.input_shapes, self.job.seed)
            self.inputs[id(model)] = calibration.Held(partial(self._roomy, model, made))
        most = None if self.budget is None else self.budget.samples
        found = self.inputs[id(model)]
        return found if most is None else lambda: calibration.first(found, most)

    def _roomy(self, model: Model, batches: Batches) -> Iterator[Feeds]:
        """Inputs, each seen to have room before anything runs on it."""
        analysis, seen = self.analysis(model), set[tuple[Shape, ...]]()
        for feeds in batches():
            sizes = {name: tuple(value.shape) for name, value in feeds.items()}
            if tuple(sizes.values()) not in seen:
                seen.add(tuple(sizes.values()))
                check_room(analysis.model, analysis.witness, sizes)
            yield feeds


@dataclass(frozen=True)
class Notes:
    """What the user should know beside the result."""

    lines: tuple[str, ...] = ()
