"""Runs a recipe on a model: what is read and written is declared, passes are done, results appear together."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from graphprune.errors import InputError
from graphprune.model import AnyModel, Model, apart, files, load, paths
from graphprune.model.arguments import InputShapes, checked
from graphprune.passes import driver, toml
from graphprune.passes.contract import Pass
from graphprune.passes.driver import Clock
from graphprune.passes.recipe import Recipe
from graphprune.passes.results import Outputs, Result, conclude
from graphprune.passes.shelf.filling import filled
from graphprune.passes.state import Job, State
from graphprune.progress import Progress
from graphprune.rewrite import packed as packing
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import described
from graphprune.run import samples, synthetic, threads
from graphprune.run.reading import asked


@checked
@paths.run()
@threads.steady()
def run_recipe(
    recipe: str | os.PathLike[str] | Recipe,
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    plan: str | os.PathLike[str] | None = None,
    packed: str | os.PathLike[str] | None = None,
    calibration: str | None = None,
    targets: Sequence[str] = (),
    input_shapes: InputShapes | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Do what a recipe says to a model.

    Args:
        recipe: a recipe, the file of one (see ``graphprune.passes.toml``), or the name of one of the package (see
            ``graphprune.passes.shelf``).
        model: as for :func:`prune`.
        output: where to write the result; the plan goes beside it as ``<output without .onnx>.plan.json``.
        plan: where to write the plan instead.
        packed: where to write sparse weights packed (see ``graphprune.rewrite.packed``).
        calibration, targets: inputs, and what the result is to come to, in place of what the recipe says.
        input_shapes: sizes for inputs, beside those of the recipe.
        resume: a folder where finished parts are kept, as for :func:`prune`.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: the recipe cannot be read, or cannot be done to this model; says why.
        ProofError: the result is not what the masked original is; nothing was written.
        VerdictError: it does not pass a pass ``validate``; nothing was written.
        BackendError: a pass needs a library that is not installed.
    """
    recipe = recipe if isinstance(recipe, Recipe) else toml.load(recipe)
    if calibration is not None or targets:
        recipe = filled(recipe, calibration, targets)
    progress = progress or Progress()
    clock, begun = Clock(progress), monotonic()
    apart.start()
    loaded = load(model)
    job = recipe.job_for(loaded.name)
    job = replace(job, input_shapes={**job.input_shapes, **(input_shapes or {})})
    empty = State(loaded, loaded, Plan({}), job, progress)
    for option, given in (("--time", job.time), ("--resume", resume)):
        if given is not None and job.calibration is None:
            raise InputError(f"{option} is about jobs that look at inputs: give some by --calibration")
    driver.check_requirements(recipe.passes, empty, recipe.places)
    progress.plan(driver.phases(recipe.passes, empty, output is not None), driver.costs(recipe.passes, empty))
    outputs = Outputs(output, plan, packed)
    _declare(recipe, loaded, job, outputs)
    clock.lap("load")
    with ThreadPoolExecutor(1) as pool:  # a large file is hashed while it is analysed
        hashed = pool.submit(getattr, loaded, "sha256")
        analysis = empty.analysis()
        hashed.result()
    text = json.dumps(toml.told(replace(recipe, job=job)), sort_keys=True)
    state = replace(empty, plan=Plan(described(analysis)), told=text)
    passes, state = _settled(recipe.passes, state)
    state = driver.prepared(passes, state, resume, begun)
    clock.lap("analyze")
    return conclude(driver.drive(passes, state, clock), outputs, clock)


def _settled(passes: Sequence[Pass], state: State) -> tuple[list[Pass], State]:
    """Passes and job with all said of how inputs are read, by what lies beside the original; noted in the plan."""
    shapes, found = state.job.input_shapes, list[Pass]()
    for one in passes:
        own: Any = one
        if getattr(own, "inputs", None) is not None:
            own = replace(own, inputs=samples.settled(own.inputs, state.original, shapes).source)
        found.append(own)
    if state.job.calibration is None:
        return found, state
    settled = samples.settled(state.job.calibration, state.original, shapes)
    state = replace(state, job=replace(state.job, calibration=settled.source))
    return found, state.having(settled).noting(settled.told) if settled.told else state


def _declare(recipe: Recipe, model: Model, job: Job, outputs: Outputs) -> None:
    """Say what will be read and written, before anything is computed."""
    if outputs.packed is not None:
        if not any(getattr(one, "packs", False) for one in recipe.passes):
            raise InputError("--packed holds weights of an N:M pattern: ask for one by --pattern")
        packing.check_place(Path(outputs.packed))
    for one in recipe.passes:
        one.declares()
    for source in (job.calibration, *(getattr(one, "inputs", None) for one in recipe.passes)):
        place = asked.place(source)
        paths.reads("the inputs that are read", None if place == synthetic.NAME else place)
    files.declare(model, outputs.model, outputs.plan)  # behind all that is read: that is said first
    paths.writes("the packed weights", outputs.packed)
    if outputs.model is not None:
        for kind in (kind for one in recipe.passes for kind in one.leaves):
            paths.writes(f"the {kind}", files.beside(Path(outputs.model), kind))
