"""One recipe, several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphprune.errors import GraphpruneError, InputError
from graphprune.model import files, paths
from graphprune.passes.recipe import Recipe
from graphprune.passes.results import Result
from graphprune.passes.running import run_recipe
from graphprune.progress import Progress
from graphprune.relation import Shape


@dataclass(frozen=True)
class Outcome:
    """What came of one model of several.

    Attributes:
        model: its file.
        result: None where it failed.
        error: why it failed, in one line.
        status: the exit status that stands for it.
    """

    model: Path
    result: Result | None = None
    error: str | None = None
    status: int = 0


def run_all(
    recipe: Recipe,
    models: Sequence[Path],
    places: Sequence[Path] | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    progress: Progress | None = None,
    resume: Path | None = None,
) -> list[Outcome]:
    """Do what a recipe says to several models; one that fails does not stop the others.

    The files of each appear when it is done: what comes behind may fail, or be killed.

    Args:
        recipe: the recipe.
        models: files.
        places: where each result goes; None writes nothing.
        input_shapes: sizes for inputs, beside those of the recipe.
        progress: is told of every phase and of its steps.
        resume: a folder where finished parts are kept, as for :func:`graphprune.prune`.

    Raises:
        InputError: a place cannot be written to, or what is there is to stay (see ``graphprune.model.paths``).
    """
    for model, place in zip(models, places or (), strict=places is not None):
        paths.reads("the model", model)
        paths.writes("the output", place)
        paths.writes("the plan", files.plan_place(place))
    found = []
    results: Sequence[Path | None] = places or [None] * len(models)
    for model, output in zip(models, results, strict=True):
        try:
            with paths.part():
                result = run_recipe(recipe, model, output, input_shapes=input_shapes, resume=resume, progress=progress)
        except GraphpruneError as error:
            found.append(Outcome(model, None, str(error), error.exit_status))
        else:
            found.append(Outcome(model, result))
    return found


def places(models: Sequence[Path], output: Path) -> Sequence[Path]:
    """Where each result goes.

    Args:
        models: files.
        output: of one model the file of its result; of several a folder, which is made, where each keeps its name.

    Raises:
        InputError: several models have one name, or the output is no folder.
    """
    if len(models) == 1 and not output.is_dir():
        return [output]
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; the results of several models go to a folder")
    names = [model.stem for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{output}: two models are called {twice}, and their results would be one file")
    output.mkdir(parents=True, exist_ok=True)
    return [output / f"{name}.onnx" for name in names]
