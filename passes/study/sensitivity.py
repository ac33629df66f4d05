"""Sensitivity: each set of groups loses some classes for once, what reads them is refitted, and the model is judged.

One task is one set at one level. What goes first is ranked once, and readers make up for it by least squares, from
second moments that are gathered once (see ``graphprune.passes.choose.trial``); nothing of either is learnt from the
quarter of the inputs that the metric looks at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphprune.analysis import cost
from graphprune.errors import InputError
from graphprune.model import AnyModel, load, paths
from graphprune.model.arguments import InputShapes, Seed, Size, checked
from graphprune.passes.choose.criteria import resolve_criterion
from graphprune.passes.choose.ties import Together
from graphprune.passes.choose.trial import without
from graphprune.passes.metric import FIDELITY
from graphprune.passes.metric import metric as found_metric
from graphprune.passes.study import drawing, page
from graphprune.passes.study.curves import SORTS, Curve, Point, Sensitivity, rounded
from graphprune.passes.study.subject import Opened, Scope, Subject, close, content
from graphprune.passes.study.tasks import Found, Shard, Task, missing, place_of, run_all
from graphprune.progress import Progress
from graphprune.rewrite.removal import Removal
from graphprune.run import samples
from graphprune.run.calibration import Source
from graphprune.run.reading import asked

LEVELS = (0.1, 0.25, 0.5, 0.75)
PHASES = ("load", "analyze", "observe", "rank", "measure")
_ORIGINAL: Task = {"task": "original"}


@checked
@paths.run()
def sensitivity(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    calibration: Source | None = None,
    metric: str | Callable[..., Any] = FIDELITY[0],
    levels: Sequence[float] = LEVELS,
    criterion: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_statistical: bool = False,
    input_shapes: InputShapes | None = None,
    seed: Seed = 0,
    folder: str | os.PathLike[str] | None = None,
    jobs: Size | None = None,
    shard: str | None = None,
    sort: str = SORTS[0],
    progress: Progress | None = None,
) -> Sensitivity:
    """How much of each group can go: score, MACs and parameters at several levels, one set of groups at a time.

    Args:
        model: as for :func:`graphprune.prune`; it is not changed.
        output: where to draw it, as ``.svg``.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated``; a quarter is held out.
        metric: how good a model is: ``distance``, ``top1`` or ``cosine`` on what is held out, or a function (or
            ``module:function``) from an ``onnx.ModelProto`` to a number (see ``graphprune.passes.metric``).
        levels: shares of the classes of a set, above 0 and below 1.
        criterion: by what classes are ranked, as for :func:`graphprune.prune`.
        include, exclude: globs on group ids and node names.
        allow_statistical: groups too that a mean runs over.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        seed: of generated inputs, of the choice of rows and of what is held out.
        folder: where results lie, so that an interrupted study goes on, and several machines share one.
        jobs: how many models are judged at once; by default one, or what ``joblib.parallel_config`` says.
        shard: ``2/3`` computes the second of three parts; without one, what others have left is put together.
        sort: of the rows of a drawing: by ``drop`` beside what is saved, or as in the ``model``.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: bad model or arguments, or there is nothing to look at.
        UserCodeError: a function of the user's raises.
    """
    levels = _checked_levels(levels)
    if sort not in SORTS:
        raise InputError(f"--sort {sort}: choose from {', '.join(SORTS)}")
    if calibration is None:
        raise InputError(
            "sensitivity looks at inputs: give some by --calibration, or have them made up by --calibration generated"
        )
    if shard is not None and folder is None:
        raise InputError(f"--shard {shard}: the parts of a study meet in a folder: give one by --folder")
    part = None if shard is None else Shard.read(shard)
    page.check(output)
    paths.writes("the drawing", output, again=folder is not None)
    paths.reads("the inputs that are read", asked.place(calibration))
    progress = progress or Progress()
    progress.plan(PHASES, {"observe": 6.0, "rank": 9.0, "measure": 60.0})
    loaded = load(model)
    found_metric(metric, loaded, lambda: ())  # a slip in its name is told before anything is computed
    scope = Scope(resolve_criterion(criterion, True), include, exclude, allow_statistical, max(levels))
    settled = samples.settled(samples.kept(calibration), loaded, input_shapes)
    with place_of(folder) as place:
        subject = Subject(content(loaded), settled.source, metric, scope, dict(input_shapes or {}), seed, place)
        try:
            found = _studied(subject.open(loaded, progress), levels, jobs, part)
            found = replace(found, notes=(*([settled.told] if settled.told else []), *found.notes))
        finally:
            close()
    drawing.draw(found, output, sort)
    return found


def _checked_levels(levels: Sequence[float]) -> list[float]:
    found = sorted(set(levels))
    if wrong := next((level for level in found if not 0 < level < 1), None):
        raise InputError(f"--levels: {wrong:g} is out of range: a level is the share to remove, above 0 and below 1")
    if not found or found[0] == 0:
        raise InputError("--levels: give shares to remove, above 0 and below 1, as 0.1,0.25,0.5")
    return found


@dataclass(frozen=True)
class _Without:
    """Judges the model without the classes that a task names."""

    subject: Subject

    def __call__(self, task: Task) -> Found:
        opened = self.subject.open()
        if task == _ORIGINAL:
            return {"score": rounded(opened.metric.whole), "notes": list(opened.metric.notes)}
        one, analysis = opened.sets[task["set"]], opened.analysis
        order = opened.first(one, task["count"])
        selection = {group.id: sorted(order) for group in one.members} if order else {}
        pruned = without(analysis, selection, opened.observed.contractions(one.members)) if order else analysis.model
        return {
            "order": order,
            "score": rounded(opened.metric(pruned)),
            "macs": cost.macs(analysis, Removal(analysis, selection).sizes()),
            "parameters": cost.parameters(pruned),
        }


def _studied(opened: Opened, levels: Sequence[float], jobs: int | None, shard: Shard | None) -> Sensitivity:
    if not opened.sets:
        why = f": group {opened.untouched[0].group!r}: {opened.untouched[0]}" if opened.untouched else ""
        raise InputError(
            f"{opened.analysis.model.name}: there is no group to look at{why}; 'graphprune inspect' lists what there is"
        )
    counts = {one.id: {level: _count(one, level) for level in levels} for one in opened.sets.values()}
    tasks: list[Task] = [_ORIGINAL]
    tasks += [
        {"task": "without", "set": id, "count": k} for id, own in counts.items() for k in dict.fromkeys(own.values())
    ]
    progress = opened.progress
    if any(task != _ORIGINAL for task in missing(tasks, opened.place, shard)):
        opened.observed.scores()
    told = progress.begin("measure")
    results = run_all(tasks, _Without(opened.subject), opened.place, jobs, shard, told)
    by_task = {(task.get("set"), task.get("count")): found for task, found in zip(tasks, results, strict=True)}
    whole = by_task.pop((None, None))
    analysis = opened.analysis
    before = cost.macs(analysis), cost.parameters(analysis.model)
    score = None if whole is None else whole["score"]
    curves = [
        _curve(one, {level: by_task[one.id, k] for level, k in counts[one.id].items()}, score, before)
        for one in opened.sets.values()
    ]
    return Sensitivity(
        analysis.model.name, analysis.model.sha256, opened.metric.name, score, opened.subject.scope.criterion,
        opened.subject.seed, tuple(levels), *before, tuple(curves),
        tuple((one.group, str(one)) for one in opened.untouched),
        sum(found is None for found in results), tuple(() if whole is None else whole["notes"]),
    )  # fmt: skip


def _count(one: Together, level: float) -> int:
    """How many classes a level stands for: at least one, and not all."""
    return min(max(1, int(level * one.size + 1e-9)), one.most)


def _curve(one: Together, found: Mapping[float, Found | None], whole: float | None, before: tuple[int, int]) -> Curve:
    """What the tasks of one set came to.

    Args:
        one: the set.
        found: by level.
        whole: the score of the original.
        before: multiply-accumulates and parameters of the original.
    """
    points, order = [], list[int]()
    for level, result in found.items():
        if result is None:
            continue
        order = max(order, result["order"], key=len)
        removed, score = len(result["order"]), result["score"]
        drop = None if score is None or whole is None else rounded(whole - score)
        saved = before[0] - result["macs"], before[1] - result["parameters"]
        points.append(Point(level, removed, removed / one.size, score, drop, *saved))
    ids = tuple(group.id for group in one.members)
    return Curve(ids, one.members[0].kind, one.size, len(one.free), tuple(order), tuple(points))
