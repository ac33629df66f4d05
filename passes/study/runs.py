"""The runs of a sweep as tasks: plain data, of which every worker opens for itself what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from graphprune.analysis import Analysis, analyze
from graphprune.errors import TargetError, VerdictError
from graphprune.model import Model, load, paths
from graphprune.model.model import digest
from graphprune.passes import kept
from graphprune.passes.metric import Metric, Spec, identity, metric
from graphprune.passes.running import run_recipe
from graphprune.passes.study.curves import rounded
from graphprune.passes.study.points import Came
from graphprune.passes.study.tasks import Found, Place, Task
from graphprune.passes.study.variants import Variant
from graphprune.relation import Shape
from graphprune.run import calibration
from graphprune.run.calibration import Held, Source

ORIGINAL: Task = {"task": "original"}


@dataclass(frozen=True)
class Judge:
    """By what, and on what, models are judged.

    Attributes:
        model: the original: its file, or what that would hold.
        metric: how good a model is.
        calibration: inputs, of which a quarter is held out; None where the metric needs none.
        input_shapes: sizes for inputs whose free dims cannot be guessed.
        seed: of what is drawn by chance.
    """

    model: Path | bytes
    metric: Spec
    calibration: Source | None
    input_shapes: Mapping[str, Shape]
    seed: int


class Opened:
    """A judge with the model and the inputs open; each part is made when it is first asked for.

    Args:
        judge: the judge.
        loaded: the model, where it was loaded before.
    """

    def __init__(self, judge: Judge, loaded: Model | None = None) -> None:
        self.judge = judge
        self.loaded = load(judge.model) if loaded is None else loaded

    @cached_property
    def analysis(self) -> Analysis:
        """Of the original."""
        return analyze(self.loaded, self.judge.input_shapes)

    @cached_property
    def batches(self) -> Held | None:
        """All inputs."""
        judge = self.judge
        if judge.calibration is None:
            return None
        runnable = self.analysis.model.runnable
        return Held(calibration.batches(judge.calibration, runnable, judge.input_shapes, judge.seed))

    @cached_property
    def metric(self) -> Metric:
        """How good a model is."""
        return metric(self.judge.metric, self.analysis.model, self.batches, self.judge.seed)

    @property
    def about(self) -> str:
        """What all results follow from, hashed."""
        judge = self.judge
        options = "sweep", identity(judge.metric), sorted(judge.input_shapes.items()), judge.seed
        return kept.about(self.loaded, self.batches or (lambda: ()), *options)


_opened: dict[str, Opened] = {}


def remember(about: str, opened: Opened) -> None:
    """Let work in this process use what is open already."""
    _opened.clear()  # one study at a time: a worker has no use for the last one
    _opened[about] = opened


def close() -> None:
    """Forget what was opened in this process."""
    _opened.clear()


@dataclass(frozen=True)
class Runs:
    """Does the runs of a sweep.

    Attributes:
        judge: by what results are judged.
        variants: what is run.
        place: where results lie, and what runs find that others can use.
        models: a folder that keeps the models, None where they go when they are judged.
    """

    judge: Judge
    variants: tuple[Variant, ...]
    place: Place
    models: Path | None = None

    def tasks(self, stem: str) -> list[Task]:
        """A task for the original, and one for each run.

        Args:
            stem: how the files of results begin.
        """
        several = len({one.recipe for one in self.variants}) > 1
        found: list[Task] = [ORIGINAL]
        for one in self.variants:
            name = f"{stem}-{one.recipe}-{one.asked.text}.onnx" if several else f"{stem}-{one.asked.text}.onnx"
            found.append(
                {"task": "run", "recipe": one.recipe, "asked": one.asked.text, "content": one.content, "file": name}
            )
        return found

    def forget(self, tasks: Sequence[Task]) -> None:
        """Take away results whose models are to be kept and are not there, so that both are made again."""
        for task in tasks:
            found = self.place.read(task)
            if self.models is None or found is None or "sha256" not in found:
                continue
            model = self.models / task["file"]
            if not model.is_file() or digest(model) != found["sha256"]:
                self.place.of(task).unlink(missing_ok=True)

    def __call__(self, task: Task) -> Found:
        """What a task comes to: the fields of :class:`Came`, or a reason why it cannot be had."""
        if self.place.about not in _opened:
            remember(self.place.about, Opened(self.judge))
        opened = _opened[self.place.about]
        if task == ORIGINAL:
            return {"score": rounded(opened.metric.whole), "notes": list(opened.metric.notes)}
        one = next(v for v in self.variants if (v.recipe, v.asked.text) == (task["recipe"], task["asked"]))
        resume = None if one.done.job.calibration is None else self.place.folder
        with ExitStack() as stack:
            folder = self.models or Path(stack.enter_context(TemporaryDirectory()))
            written = folder / task["file"]
            try:
                with paths.alone():
                    result = run_recipe(one.done, opened.loaded, written, resume=resume)
            except (TargetError, VerdictError) as error:
                return {"reason": _reason(error, opened.loaded.name, one.asked.text)}
            missed = "" if result.met is None else result.met.missed
            after, score = result.after, rounded(opened.metric(result.model))
            came = Came(after.macs, after.parameters, after.bytes, score, digest(written), missed, tuple(result.notes))
        return {**vars(came), "notes": list(came.notes)}


def _reason(error: Exception, model: str, asked: str) -> str:
    """Why a run came to nothing, without what is plain from its row."""
    told = str(error).removeprefix(f"{model}: ").removeprefix(f"--target {asked} ")
    return told.partition(". Nothing was written")[0]
