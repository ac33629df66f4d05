"""Two models are the same: they give the same on the same generated inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.errors import InputError, ProofError
from graphprune.model import Model
from graphprune.proof.difference import OutputError, compare
from graphprune.proof.proof import Proof
from graphprune.relation import Shape, Values
from graphprune.run.runtime import generate, run, session

_OFTEN = 0.25
"""Share of elements that are numbers which are to come often."""


def prove(
    original: Model,
    made: Model,
    shapes: Sequence[Mapping[str, Shape]],
    seed: int,
    what: str,
    often: Mapping[str, Values] | None = None,
) -> Proof:
    """Compare a model with the one that it was made of, on inputs that both take.

    Args:
        original: the one.
        made: the other.
        shapes: input shapes to run at; the first two that the original accepts are taken.
        seed: of the generated inputs.
        what: what was done, for messages.
        often: by input numbers that are to come often.

    Raises:
        ProofError: they differ; names the output.
        InputError: ONNX Runtime cannot run the original.
    """
    errors = {name: OutputError(name, 0.0, 0.0) for name in original.output_names}
    told: list[dict[str, Any]] = []
    refused: InputError | None = None
    with session(original) as left, session(made) as right:
        for number, chosen in enumerate(shapes):
            feeds = _feeds(original, often or {}, chosen, seed + number)
            try:
                expected = run(left, feeds)
            except InputError as error:
                refused = refused or error
                continue
            told.append({"seed": seed + number, "shapes": {n: list(s) for n, s in chosen.items()}})
            for name, a, b in zip(errors, expected, run(right, feeds), strict=True):
                trouble = compare(errors[name], np.asarray(a), np.asarray(b))
                if trouble is not None:
                    raise ProofError(
                        f"{made.name}: the proof fails: {what} output {name!r} {trouble}. Nothing was written."
                    )
            if len(told) == 2:
                break
    if not told:
        raise refused or InputError(f"{original.name}: no input shape to run the proof at; give one by --input-shape")
    return Proof(told, list(errors.values()))


def _feeds(model: Model, often: Mapping[str, Values], shapes: Mapping[str, Shape], seed: int) -> dict[str, Values]:
    """Generated inputs, in which some numbers come often."""
    feeds, rng = generate(model, shapes, seed), np.random.default_rng(seed)
    for name, numbers in often.items():
        if len(numbers):
            there = rng.random(feeds[name].shape) < _OFTEN
            feeds[name] = np.where(there, rng.choice(numbers, feeds[name].shape), feeds[name]).astype(feeds[name].dtype)
    return feeds
