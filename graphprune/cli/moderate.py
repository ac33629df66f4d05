"""What ``prune`` does where nobody says how much is to go, what is to be expected of that, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from graphprune.model import files
from graphprune.passes.aim.meet import Meet
from graphprune.passes.results import Result
from graphprune.relation import Shape
from graphprune.run import sizing, synthetic
from graphprune.run.calibration import Source
from graphprune.run.reading import asked

WITH_INPUTS, WITHOUT = "macs=0.7", "macs=0.95"
"""What is aimed at with inputs of the user's, and with made-up ones (``tests/benchmarks/ACCURACY.md`` says why)."""


def moderately(calibration: Source | None) -> tuple[Meet, Source]:
    """What is aimed at, or what comes nearest, and the inputs: those that are given, or made-up ones."""
    if calibration is None or calibration == synthetic.NAME:
        return Meet((WITHOUT,), nearest=True), synthetic.NAME
    return Meet((WITH_INPUTS,), nearest=True), calibration


def print_next(
    out: Console, result: Result, model: Path, calibration: Source | None, shapes: Mapping[str, Shape]
) -> None:
    """What to expect, and commands that could follow, each on a line of its own to be copied whole.

    Args:
        out: where to.
        result: what came of it.
        model: the original.
        calibration: what was asked for, or what stood in for it.
        shapes: sizes that were given, which all of the commands need.
    """
    out.print()
    out.print(Text(_MADE_UP if calibration == synthetic.NAME else _GIVEN))
    for what, command in _commands(result, model, calibration, shapes):
        out.print(Text(f"{what}:"))
        out.print(Text(f"  {command}"), soft_wrap=True)


_MADE_UP = (
    f"There were no inputs, so it was chosen and fitted on made-up ones, and little was aimed at ({WITHOUT}). Even so "
    "accuracy may go: of three trained models that were measured two lost nothing, one 3 points of 100. Look before "
    "you use it. A few dozen inputs of yours, unlabelled, are worth far more:"
)
_GIVEN = (
    f"Nothing said how much is to go: {WITH_INPUTS} was aimed at. If the inputs are like those that it will meet, it "
    "should lose a point of accuracy or two. Look before you use it:"
)


def _commands(
    result: Result, model: Path, calibration: Source | None, shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, str]]:
    """What each is for, and the command."""
    sizes = [f"--input-shape={name}={'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    if calibration == synthetic.NAME:
        free = {**sizing.free_dims(result.analysis.model), **shapes}
        arrays = ", ".join(_told(name, dims) for name, dims in free.items())
        again = [] if result.output is None else ["--force"]
        yield (
            f"with inputs in inputs.npz ({arrays}), or a folder of images",
            _line("prune", model, "--calibration", "inputs.npz", *sizes, *again),
        )
    else:
        deeper: list[str | Path] = [
            "--target",
            "macs=0.5",
            "--distill",
            "5m",
            "-o",
            model.with_name(f"{model.stem}.half.onnx"),
        ]
        yield (
            "half of it, trained towards the original",
            _line("prune", model, *_inputs("--calibration", calibration), *deeper, *sizes),
        )
    if result.output is None:
        return
    like = [] if calibration == synthetic.NAME else _inputs("--inputs", calibration)
    yield "is it right, and like the original", _line("validate", result.output, "--against", model, *like, *sizes)
    yield "is it faster", _line("bench", model, result.output, *sizes)
    plan, cut = files.plan_place(result.output), [g for g in result.plan.groups if g.removed]
    if plan is not None and cut:
        most = max(cut, key=lambda group: len(group.removed) / group.size)
        yield "why did a group lose so much", _line("explain", plan, most.id)
    if plan is not None:
        page = plan.with_suffix(".html")
        yield "all of it as a page", _line("report", plan, "-o", page, *["--force"] * page.exists())
    yield "what else could go, and what stays", _line("inspect", model, *sizes)


def _inputs(option: str, calibration: Source | None) -> list[str]:
    """The options, the first of this name, that say where inputs are, and how they are read."""
    said = (word for key, value in asked.settings(calibration).items() for word in ("--preprocess", f"{key}={value}"))
    return [option, str(asked.place(calibration)), *said]


def _told(name: str, dims: Sequence[int | str]) -> str:
    """An input's array: free sizes by their names, or as ``any`` where they have none."""
    sizes = ("any" if dim == f"{name}.{axis}" else str(dim) for axis, dim in enumerate(dims) if axis)
    return f"{name}: {' x '.join(['samples', *sizes])}"


def _line(*words: str | Path) -> str:
    return f"graphprune {shlex.join(map(str, words))}"
