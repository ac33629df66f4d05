"""The model that a study is about, with inputs and options: plain data, which every worker opens for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from graphprune.analysis import Analysis, Group, analyze
from graphprune.analysis.contractions import observe
from graphprune.model import Model, load
from graphprune.model.interchange import stored
from graphprune.passes import kept
from graphprune.passes.choose import constants, criteria, ratio, sensitivity, ties
from graphprune.passes.choose.ratio import Untouched
from graphprune.passes.choose.ties import Together
from graphprune.passes.holding import divide
from graphprune.passes.metric import Metric, Spec, identity, metric
from graphprune.passes.study.observed import Made, Observed
from graphprune.passes.study.tasks import FOLDER, Place
from graphprune.progress import Progress
from graphprune.relation import Shape
from graphprune.run import calibration
from graphprune.run.calibration import Batches, Held, Source

TIED = 0.5
"""The share of classes at which it is decided which groups go together."""


@dataclass(frozen=True)
class Scope:
    """Which groups a study looks at, and how their classes are ranked.

    Attributes:
        criterion: by what classes are ranked (see ``criteria``).
        include, exclude: globs on group ids and node names.
        allow_statistical: groups too that a mean runs over.
        most: the largest share of a group that goes.
    """

    criterion: str
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_statistical: bool = False
    most: float = 1.0


@dataclass(frozen=True)
class Subject:
    """What a study is about.

    Attributes:
        model: the file, or what it would hold.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated``.
        metric: how good a model is.
        scope: what is looked at.
        input_shapes: sizes for inputs whose free dims cannot be guessed.
        seed: of what is drawn by chance.
        folder: where results lie.
        about: what they follow from, hashed; known once the subject was opened.
    """

    model: Path | bytes
    calibration: Source
    metric: Spec
    scope: Scope
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    seed: int = 0
    folder: Path = Path()
    about: str = ""

    def open(self, loaded: Model | None = None, progress: Progress | None = None) -> Opened:
        """The subject, ready for work; in each process it is opened once.

        Args:
            loaded: the model, where it was loaded before.
            progress: is told of the phases ``analyze``, ``observe`` and ``rank``.
        """
        if self.about and (there := _opened.get(self.about)) is not None:
            return there
        progress = progress or Progress()
        model = load(self.model) if loaded is None else loaded
        progress.begin("analyze")
        analysis = analyze(model, self.input_shapes)
        runnable = analysis.model.runnable
        batches = Held(calibration.batches(self.calibration, runnable, self.input_shapes, self.seed))
        subject = self
        if not self.about:
            options = self.scope, identity(self.metric), sorted(self.input_shapes.items()), self.seed
            subject = replace(self, about=kept.about(model, batches, *options))
        _opened.clear()  # one study at a time: a worker has no use for the last one
        found = _opened[subject.about] = Opened(subject, analysis, batches, progress)
        return found


_opened: dict[str, Opened] = {}


class Opened:
    """A subject, with all that its tasks share; each part is made when it is first asked for.

    Args:
        subject: the subject.
        analysis: of the model.
        batches: all inputs.
        progress: who watches.
    """

    def __init__(self, subject: Subject, analysis: Analysis, batches: Batches, progress: Progress) -> None:
        self.subject, self.analysis, self.batches, self.progress = subject, analysis, batches, progress
        self.groups, self.untouched = self._candidates()
        self.sets = {one.id: one for one in ties.together(analysis, self.groups, TIED)}

    def _candidates(self) -> tuple[list[Group], list[Untouched]]:
        scope = self.subject.scope
        return ratio.candidates(self.analysis, scope.include, scope.exclude, scope.allow_statistical, TIED)

    @property
    def place(self) -> Place:
        """Where results lie."""
        return Place(self.subject.folder, self.subject.about)

    @cached_property
    def metric(self) -> Metric:
        """How good a model is, on inputs that nothing was learnt from."""
        return metric(self.subject.metric, self.analysis.model, self.batches, self.subject.seed)

    @cached_property
    def observed(self) -> Observed:
        """What was observed on all other inputs."""
        own = kept.Kept(self.subject.folder, self.subject.about, FOLDER).on("observed")
        return Observed(own, self._observe)

    def _observe(self) -> Made:
        subject, analysis = self.subject, self.analysis
        learnt, _ = divide(analysis.model.runnable, self.batches, subject.seed, "a study of sensitivity")
        contractions = observe(analysis, self.groups, learnt, subject.seed, self.progress.begin("observe"))
        some = calibration.first(learnt, sensitivity.SAMPLES)
        given = criteria.Given(analysis, contractions, subject.seed, some)
        scope, told = subject.scope, self.progress.begin("rank")
        rankings, _ = criteria.rank(given, self.groups, scope.criterion, told, scope.most)
        scores = {id: ranking.scores for id, ranking in rankings.items()}
        for id, classes in constants.constant(analysis, self.groups).items():
            scores[id][classes] = 0  # they cost nothing
        return contractions, scores

    def first(self, one: Together, count: int) -> list[int]:
        """The classes of a set that go first, the least important first; fewer where an axis would be left empty."""
        scores = ties.joint([one], self.observed.scores())
        chosen = ratio.lowest([one], scores, {one.id: count}).selection.get(one.id, [])
        return sorted(chosen, key=lambda c: (scores[one.id][c], c))


def content(model: Model) -> Path | bytes:
    """A model as workers are given it: its file, or what that would hold."""
    return model.path or stored(model).SerializeToString()


def close() -> None:
    """Forget what was opened in this process."""
    _opened.clear()
