"""The first runs of a model that came from elsewhere: in a process of their own, with limits (``model.apart``).

A native crash, a run that never ends, or more memory than there is end that process, and are an error of one line here.
What no shape tells is recorded there, and a model whose shapes are all told runs there once before it runs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphprune.errors import InputError
from graphprune.model import Model, apart, limits
from graphprune.model.checked.asking import said
from graphprune.relation import Shape
from graphprune.run import owed, threads
from graphprune.run.portions import weight
from graphprune.run.runtime import (
    Feeds,
    RefusedError,
    exposing,
    generate,
    serialised,
    told_sizes,
    widened,
    written,
)

_TRIED = 64 << 20
"""Bytes of weights up to which a model whose shapes are all told runs there first: more are too much to copy for it."""


def record_shapes(model: Model, shapes: Mapping[str, Shape], names: Sequence[str]) -> dict[str, apart.Made]:
    """Run the model once and return how large the named tensors are.

    Raises:
        RefusedError: ONNX Runtime refuses the model.
        KilledError: it ends the process that runs it.
        InputError: ONNX Runtime fails at these shapes.
    """
    runnable = model.runnable
    names = [n for n in names if n in runnable.producer]  # what bodies hold cannot be asked for
    if not names:
        return {}
    made = _made(exposing(runnable, names), generate(model, shapes), names)
    model.source.untried = False
    return {n: found for n, found in zip(names, made, strict=True) if found is not None}


def attempt(model: Model, feeds: Feeds) -> InputError | None:
    """Run a model once, and say why it does not run.

    Raises:
        KilledError: it ends the process that runs it.
    """
    try:
        _made(model.runnable, feeds, None)
    except InputError as error:
        return error
    model.source.untried = False
    return None


def tried(model: Model, feeds: Feeds) -> None:
    """See that a model does no harm on these inputs, where that has not been seen.

    Raises:
        KilledError: it ends the process that runs it.
    """
    if model.source.untried:
        attempt(model, feeds)


def owe(model: Model, shapes: Mapping[str, Shape]) -> None:
    """Have a model run once at these sizes before it runs in this process: by the next session (see ``owed``)."""

    def trial(model: Model) -> None:
        try:
            feeds = generate(model, shapes)
        except RefusedError:  # no inputs can be made
            return
        tried(model, feeds)

    if weight(model) <= _TRIED:
        owed.owe(model, trial)


def _made(model: Model, feeds: Feeds, names: Sequence[str] | None) -> list[apart.Made | None]:
    weights = weight(model)
    model = widened(model)
    with written(model) as path:
        given = path or serialised(model)
        room = limits.limit() + 2 * weights
        job = apart.Job(given, feeds, names, False, limits.seconds(weights), room, threads.sessions())
        answer = apart.ask(job)
    apart.see(answer, job, model.name, f" at {told_sizes(feeds)}" if feeds else "")
    if answer.refused:
        raise RefusedError(f"{model.name}: ONNX Runtime cannot run it: {said(RuntimeError(answer.refused))}")
    if answer.made is None:
        raise InputError(
            f"ONNX Runtime fails on inputs of shapes {told_sizes(feeds)}: {said(RuntimeError(answer.failed))}"
        )
    return answer.made
