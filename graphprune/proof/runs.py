"""Runs of the masked original: what the pruned model is held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Shape, Values
from graphprune.run.portions import several
from graphprune.run.runtime import RefusedError, generate, switches

_SWITCHED = 16
"""Runs by other branches, at most: of more switches several are turned at a time."""


@contextmanager
def provable() -> Iterator[None]:
    """Let who has no ONNX Runtime for a model know how to go on."""
    try:
        yield
    except RefusedError as error:
        raise InputError(f"{error}; without ONNX Runtime there is no proof: --no-proof goes on without one") from error


Run = tuple[dict[str, Values], list[Any]]


@dataclass(frozen=True)
class Given:
    """Inputs that are generated: from which seed, at which shapes, and which booleans are false."""

    seed: int
    shapes: Mapping[str, Shape]
    off: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in the plan."""
        found: dict[str, Any] = {"seed": self.seed, "shapes": {n: list(s) for n, s in self.shapes.items()}}
        return found | ({"off": list(self.off)} if self.off else {})


def run_masked(
    original: Model,
    masked: Model,
    shapes: Sequence[Mapping[str, Shape]],
    seed: int,
    edges: Sequence[Mapping[str, Shape]] = (),
) -> tuple[list[dict[str, Any]], list[Run]]:
    """Inputs and outputs of the masked original: at two shapes that it accepts, at edges, and by other branches."""
    inputs: list[dict[str, Any]] = []
    runs: list[Run] = []
    refused: InputError | None = None
    with provable(), several(masked) as run:

        def accepts(tried: Sequence[Given]) -> InputError | None:
            """Run what was not refused; returns the first refusal."""
            feeds = [generate(original, one.shapes, one.seed, one.off) for one in tried]
            found = list(zip(tried, feeds, run(feeds, None), strict=True))
            runs.extend((own, result) for _, own, result in found if not isinstance(result, InputError))
            inputs.extend(one.to_json() for one, _, result in found if not isinstance(result, InputError))
            return next((result for _, _, result in found if isinstance(result, InputError)), None)

        left = [Given(seed + k, chosen) for k, chosen in enumerate(shapes)]
        while left and len(runs) < 2:
            tried, left = left[: 2 - len(runs)], left[2 - len(runs) :]
            error = accepts(tried)
            refused = refused or error
        if runs:
            taken = {n: tuple(s) for n, s in inputs[0]["shapes"].items()}
            further = [Given(seed + len(shapes) + k, chosen) for k, chosen in enumerate(edges)]
            further += [Given(seed, taken, names) for names in turned(switches(original))]
            if further:
                accepts(further)
    if runs and not any(_finite(np.asarray(value)) for _, outputs in runs for value in outputs):
        raise InputError(
            f"{original.name}: its outputs are not finite on generated inputs, so that comparing them proves nothing; "
            "look for NaN in its weights with 'graphprune validate', or go on with --no-proof"
        )
    if not runs:
        if refused is not None:
            raise InputError(f"{original.name}: {refused}; give sizes that it accepts by --input-shape")
        raise InputError(f"{original.name}: no input shape to run the proof at")
    return inputs, runs


def turned(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Which of some switches are off in each of the runs by other branches: one, or of many switches several."""
    return [tuple(names[k::_SWITCHED]) for k in range(min(_SWITCHED, len(names)))]


def _finite(value: Values) -> bool:
    """Whether there is anything in an output that a comparison could be about."""
    return value.dtype.kind not in "fc" or value.size == 0 or bool(np.isfinite(value).any())
