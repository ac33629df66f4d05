"""The options of the Olive pass: those of :func:`graphprune.prune` that a workflow file can hold, by the same names.

Beside them ``pattern``, ``method``, ``permute`` and ``amount`` say what :func:`graphprune.sparsify` is told by these
names, ``min_cosine``, ``max_abs`` and ``tensorrt`` what :class:`graphprune.Checks` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graphprune.errors import InputError
from graphprune.passes import toml
from graphprune.passes.jobs import prune
from graphprune.passes.results import Result
from graphprune.passes.running import run_recipe
from graphprune.passes.sparse import sparse
from graphprune.run.calibration import Source
from graphprune.verdict.checks import Checks

Many = list[str]


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        type: what workflows may hold, as Olive checks it.
        says: what it does.
        default: its value where a workflow does not say.
    """

    type: Any
    says: str
    default: Any = None


PRUNE = {
    "ratio": Option(float, "Share of each group's classes to remove, in [0, 1); a list of them is searched.", 0.0),
    "target": Option(str | Many, "What the result is to come to, in place of a ratio: macs=0.5, params=3e6."),
    "steps": Option(int, "In how many rounds.", 1),
    "align": Option(int, "Widths that remain are multiples of this."),
    "backend": Option(str, "The runtime that the model is for, as tensorrt or qnn:int8: widths that pay there."),
    "uniform_widths": Option(bool, "Layers that repeat keep one width.", False),
    "blocks": Option(int | Many, "Whole blocks that go first: how many, or their ids or globs on these."),
    "include": Option(Many, "Globs on groups and nodes: these alone.", []),
    "exclude": Option(Many, "Globs on groups and nodes: not these.", []),
    "steering": Option(str, "A file with ratios and limits of single groups."),
    "allow_statistical": Option(bool, "Groups that a mean runs over too.", False),
    "allow_io": Option(bool, "Let inputs and outputs that carry a state shrink.", False),
    "input_shapes": Option(dict[str, list[int]], "Sizes of inputs whose free dims cannot be guessed.", {}),
    "criterion": Option(str, "What classes are ranked by."),
    "uniform": Option(bool, "The same share of every group.", False),
    "search": Option(str | int, "Look for a better allocation: a number of candidates, or a time as 10m."),
    "compensate": Option(str, "What makes up for what went: refit, repair, fold or none."),
    "rotate": Option(bool, "Change bases first; by default with inputs."),
    "distill": Option(bool | int | str, "Train what is left towards the original: steps, or a time as 5m.", False),
    "low_rank": Option(float | str, "Weights become products of two: the share of parameters that goes so."),
    "store": Option(str, "How weights are stored: dense, auto or sparse.", "dense"),
    "time": Option(float | str, "How long it may take: seconds, or as 5m."),
    "resume": Option(str, "A folder where finished parts are kept."),
    "seed": Option(int, "Of what is drawn.", 0),
    "prove": Option(bool, "Compare with the masked original before anything is written.", True),
}
SPARSE = {
    "pattern": Option(str, "Make what is left sparse too: 2:4, 1x4 or unstructured."),
    "method": Option(str, "How weights are picked for it."),
    "permute": Option(bool, "Let channels change places for it.", False),
    "amount": Option(float, "Share of weights that go, where the pattern does not say it."),
}
CHECKS = {
    "min_cosine": Option(float, "Fail where an output has a smaller cosine with the original's."),
    "max_abs": Option(float, "Fail where an output is further from the original's."),
    "tensorrt": Option(bool, "Fail where TensorRT does not build it.", False),
}
RECIPE = "recipe"
OPTIONS = {
    **PRUNE,
    **SPARSE,
    **CHECKS,
    "calibration": Option(str, "Inputs to choose and fit on: a .npz file, a folder, module:function or generated."),
    RECIPE: Option(str, "A recipe, which then says everything but the inputs."),
}
"""All of them but ``data_config``, which is Olive's own form of inputs, in place of ``calibration``."""


def run(given: Mapping[str, Any], model: str, output: str, inputs: Source | None) -> Result:
    """Do what the options of a workflow say.

    Args:
        given: options by name, defaults among them.
        model: the file to prune.
        output: the file to write; its plan goes beside it.
        inputs: unlabelled inputs, None for none.

    Raises:
        GraphpruneError: as :func:`graphprune.prune` does; or options contradict each other.
    """
    said = {name: given[name] for name, one in OPTIONS.items() if given[name] not in (None, one.default)}
    if RECIPE in said:
        beside = sorted(set(said) - {RECIPE, "calibration", "input_shapes", "resume"})
        if beside:
            raise InputError(f"GraphPrune: {', '.join(beside)} beside a recipe, which says all that; put it in there")
        recipe = toml.load(said[RECIPE])
        if inputs is not None:
            recipe = replace(recipe, job=replace(recipe.job, calibration=inputs))
        return run_recipe(
            recipe, model, output, input_shapes=_shapes(said.get("input_shapes")), resume=said.get("resume")
        )
    options = {name: said[name] for name in PRUNE if name in said}
    if "input_shapes" in options:
        options["input_shapes"] = _shapes(options["input_shapes"])
    pattern = {name: said[name] for name in SPARSE if name in said}
    if pattern and "pattern" not in pattern:
        raise InputError(f"GraphPrune: {', '.join(pattern)} is about a pattern of zeros: give one, as pattern = 2:4")
    checks = {name: said[name] for name in CHECKS if name in said}
    return prune(
        model,
        output,
        sparsity=sparse.Request(**pattern) if pattern else None,
        checks=Checks(**checks) if checks else None,
        calibration=inputs,
        **options,
    )


def _shapes(given: Mapping[str, list[int]] | None) -> dict[str, tuple[int, ...]] | None:
    """Sizes as the program has them: JSON knows lists alone."""
    return None if given is None else {name: tuple(sizes) for name, sizes in given.items()}
