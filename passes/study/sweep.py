"""Sweep: a model is pruned by several recipes to several targets, and what nothing beats is told from the rest.

One task is one run: a recipe with one target or ratio in its place (see ``variants``). Runs share a folder for finished
parts, so that what they have in common is computed once (see ``graphprune.passes.kept``). Timing comes last, in this
process alone, with all models side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphprune.analysis import cost
from graphprune.errors import InputError
from graphprune.model import AnyModel, Model, load, paths
from graphprune.model.arguments import Count, InputShapes, Seed, Size, checked
from graphprune.passes import driver
from graphprune.passes.aim.meet import Meet
from graphprune.passes.metric import FIDELITY
from graphprune.passes.metric import metric as found_metric
from graphprune.passes.recipe import Recipe
from graphprune.passes.recipes import Wish
from graphprune.passes.state import Job, State
from graphprune.passes.study import page, runs, scatter
from graphprune.passes.study.points import Came, Point, Speed, Sweep, Timed
from graphprune.passes.study.runs import Judge, Opened, Runs
from graphprune.passes.study.subject import content
from graphprune.passes.study.tasks import Found, Place, Shard, of_shard, place_of, run_all
from graphprune.passes.study.variants import AnyRecipe, Variant, as_pruned, asked, named, variants
from graphprune.progress import Progress
from graphprune.relation import Shape
from graphprune.rewrite.plan import Plan
from graphprune.run import samples
from graphprune.run.calibration import Source
from graphprune.run.reading import asked as sources
from graphprune.verdict import latency as latencies
from graphprune.verdict import timing

PRUNE = "prune"
"""What the recipe is called that ``prune`` would build."""
ROUNDS = 40
"""Of paired runs."""


@checked
@paths.run()
def sweep(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    targets: str | Sequence[str] = (),
    ratios: Sequence[float] = (),
    recipes: Mapping[str, AnyRecipe] | Sequence[AnyRecipe] = (),
    calibration: Source | None = None,
    metric: str | Callable[..., Any] = FIDELITY[0],
    criterion: str | None = None,
    uniform: bool = False,
    steps: int = 1,
    distill: bool | Size | str = False,
    latency: bool = False,
    device: str = "cpu",
    threads: Count = 0,
    models: str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    seed: Seed = 0,
    folder: str | os.PathLike[str] | None = None,
    jobs: Size | None = None,
    shard: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Prune a model to several targets, by one recipe or several, and say which results nothing else beats.

    Args:
        model: as for :func:`graphprune.prune`; it is not changed.
        output: where to draw it, as ``.svg``.
        targets: what runs are to come to: ``macs=0.3,0.5`` are two runs; one text or several.
        ratios: the same by share of classes, as ``ratio`` of :func:`graphprune.prune`.
        recipes: files of recipes, or recipes by name; by default the one that :func:`graphprune.prune` would build.
            Each run puts its target into the pass ``meet`` (see ``variants``).
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated``, for all runs, whatever their
            recipes name; where it is left out, what they name, which must be the same.
        metric: how good a model is: ``distance``, ``top1`` or ``cosine`` on the quarter of the inputs that is held
            out of fits, or a function (or ``module:function``) from an ``onnx.ModelProto`` to a number.
        criterion, uniform, steps, distill: as for :func:`graphprune.prune`, where there are no recipes.
        latency: time all results beside the original, when all are there.
        device: where that is done, and layers are timed for targets of speed: ``cpu``, ``cuda``, ``tensorrt``, or an
            execution provider of ONNX Runtime.
        threads: within one operator; 0 leaves it to ONNX Runtime.
        models: a folder that keeps the models, each with its plan.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        seed: of what is drawn by chance, for all runs.
        folder: where results lie, so that an interrupted sweep goes on, and several machines share one.
        jobs: how many runs at once; by default one, or what ``joblib.parallel_config`` says.
        shard: ``2/3`` computes the second of three parts; without one, what others have left is put together.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: bad model or arguments, or a run cannot be done for another reason than its target.
        UserCodeError: a function of the user's raises.
    """
    wanted = asked([targets] if isinstance(targets, str) else targets, ratios)
    if shard is not None and folder is None:
        raise InputError(f"--shard {shard}: the parts of a study meet in a folder: give one by --folder")
    part = None if shard is None else Shard.read(shard)
    page.check(output)
    paths.writes("the drawing", output, again=folder is not None)
    progress = progress or Progress()
    progress.plan(["load", "analyze", "prune", *["time"] * latency], {"prune": 60.0, "time": 5.0})
    loaded, inputs = load(model), None if calibration is None else samples.kept(calibration)
    done_by = {name: replace(one, job=one.job_for(loaded.name), models={}) for name, one in named(recipes).items()}
    if not done_by:
        wish = Wish(criterion=criterion, uniform=uniform, steps=steps)
        done_by = {PRUNE: as_pruned(wish, Job(calibration=inputs), distill)}
    job = replace(_common(done_by, inputs, input_shapes or {}), seed=seed)
    # a slip in its name, or inputs that it lacks, are told before anything is computed
    found_metric(metric, loaded, None if job.calibration is None else lambda: ())
    settled = None if job.calibration is None else samples.settled(job.calibration, loaded, job.input_shapes)
    job = replace(job, calibration=None if settled is None else settled.source)
    judge = Judge(content(loaded), metric, job.calibration, job.input_shapes, seed)
    meet = Meet((), metric=metric, device=device, threads=threads)
    done = [_checked(one, job, loaded, progress) for one in variants(done_by, wanted, meet)]
    with place_of(folder) as place:
        work, opened = _opened(judge, done, loaded, place, _models(models, place, latency), progress)
        try:
            found = _swept(work, opened, jobs, part, progress)
            found = replace(found, notes=(*([settled.told] if settled and settled.told else []), *found.notes))
        finally:
            runs.close()
        if latency and part is None and not found.missing:
            progress.begin("time")
            found = _timed(found, work, opened, device, threads)
    scatter.draw(found, output)
    return found


def _common(recipes: Mapping[str, Recipe], inputs: Source | None, shapes: Mapping[str, Shape]) -> Job:
    """What holds for all runs: inputs, which are what is given or what all recipes name, and their sizes.

    Raises:
        InputError: recipes name different ones.
    """
    own = [one.job.calibration for one in recipes.values() if one.job.calibration is not None]
    # those in memory are compared by what they are, not by what they hold: arrays know no plain equality
    if inputs is None and any(not sources.same(one, own[0]) for one in own[1:]):
        raise InputError(
            "--recipes: they name different inputs, so that their scores would be none to compare: give some for all "
            "by --calibration"
        )
    inputs = inputs if inputs is not None or not own else own[0]
    sizes: dict[str, Shape] = {}
    for name, one in recipes.items():
        if wrong := next((k for k, v in one.job.input_shapes.items() if sizes.setdefault(k, v) != v), None):
            raise InputError(f"recipe {name}: input {wrong!r} has another size in an earlier one; make it the same")
    return Job({**sizes, **shapes}, calibration=inputs)


def _checked(one: Variant, job: Job, loaded: Model, progress: Progress) -> Variant:
    """A run with what holds for all; nothing is computed before every one could run.

    Raises:
        InputError: a pass cannot run in this job; says which, and why.
    """
    own = replace(one.done.job, calibration=job.calibration, input_shapes=job.input_shapes, seed=job.seed)
    done = replace(one.done, job=own)
    driver.check_requirements(done.passes, State(loaded, loaded, Plan({}), own, progress), done.places)
    return replace(one, done=done)


def _models(models: str | os.PathLike[str] | None, place: Path, latency: bool) -> Path | None:
    """The folder that keeps models: where they are wanted, or have to wait until they are timed."""
    if models is None and not latency:
        return None
    found = place / "models" if models is None else Path(models)
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--models {found}: cannot be made ({error.strerror or error})") from error
    return found


def _opened(
    judge: Judge, done: Sequence[Variant], loaded: Model, place: Path, models: Path | None, progress: Progress
) -> tuple[Runs, Opened]:
    """The runs, and the model with the inputs."""
    source = judge.calibration
    paths.reads("the inputs that are read", sources.place(source))
    progress.begin("analyze")
    opened = Opened(judge, loaded)
    about = opened.about
    runs.remember(about, opened)
    return Runs(judge, tuple(done), Place(place, about), models), opened


def _swept(work: Runs, opened: Opened, jobs: int | None, shard: Shard | None, progress: Progress) -> Sweep:
    """What all runs came to, as far as they are done."""
    tasks = work.tasks(Path(opened.loaded.name).stem)
    work.forget(of_shard(tasks, shard))
    whole, *results = run_all(tasks, work, work.place, jobs, shard, progress.begin("prune"))
    points = [
        _point(one, found, None if work.models is None else task["file"])
        for one, task, found in zip(work.variants, tasks[1:], results, strict=True)
    ]
    original, analysis = opened.loaded, opened.analysis
    return Sweep(
        original.name, original.sha256, cost.macs(analysis), cost.parameters(analysis.model),
        cost.file_bytes(analysis.model), opened.metric.name, None if whole is None else whole["score"],
        work.judge.seed, tuple(points), None, [whole, *results].count(None), tuple(whole["notes"] if whole else ()),
    )  # fmt: skip


def _point(one: Variant, found: Found | None, file: str | None) -> Point:
    if found is None or "reason" in found:
        return Point(one.recipe, one.asked.text, None, None if found is None else found["reason"])
    return Point(one.recipe, one.asked.text, Came(**{**found, "notes": tuple(found["notes"])}), None, file)


def _timed(found: Sweep, work: Runs, opened: Opened, device: str, threads: int) -> Sweep:
    """The sweep with all results timed beside the original, each round one after the other."""
    there = [k for k, point in enumerate(found.points) if point.file is not None]
    if work.models is None or not there:
        return found
    made = [work.models / str(found.points[k].file) for k in there]
    judge = work.judge
    ran = timing.bench(
        opened.loaded,
        *made,
        input_shapes=judge.input_shapes,
        threads=threads,
        provider=latencies.DEVICES.get(device, device),
        rounds=ROUNDS,
        seed=judge.seed,
        footprints=False,
    )
    points = list(found.points)
    for k, taken, ratio in zip(there, ran.timings[1:], ran.ratios, strict=True):
        points[k] = replace(points[k], speed=Speed(taken.median, ratio.speedup, ratio.low, ratio.high))
    timed = Timed(ran.provider, ran.threads, ran.rounds, ran.shapes, ran.timings[0].median)
    return replace(found, points=tuple(points), timed=timed)
