"""What is put into a recipe for one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphprune.errors import InputError
from graphprune.passes.aim.meet import Meet
from graphprune.passes.judge import Validate
from graphprune.passes.recipe import Recipe
from graphprune.run import synthetic


def filled(recipe: Recipe, calibration: str | Mapping[str, Any] | None = None, targets: Sequence[str] = ()) -> Recipe:
    """A recipe with what a run says in place of it.

    Args:
        recipe: the recipe.
        calibration: inputs, or a table that says how they are read too (``graphprune.run.reading.asked``); its passes
            ``validate`` look at them too where they name none. None leaves what it says.
        targets: what the result is to come to, for its pass ``meet``; empty leaves what it says.

    Raises:
        InputError: there are targets, and no pass ``meet`` in the recipe.
    """
    if targets and not any(isinstance(one, Meet) for one in recipe.passes):
        raise InputError(f"--target {targets[0]}: the recipe has no pass 'meet' that would see to it")
    passes, job = list(recipe.passes), recipe.job
    for place, one in enumerate(passes):
        if targets and isinstance(one, Meet):
            passes[place] = replace(one, targets=tuple(targets))
        if isinstance(one, Validate) and one.inputs is None and calibration not in (None, synthetic.NAME):
            passes[place] = replace(one, inputs=calibration)
    return replace(recipe, passes=tuple(passes), job=replace(job, calibration=calibration or job.calibration))
