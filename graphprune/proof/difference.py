"""How far two runs of one output are apart, and whether rounding alone explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model, node_name
from graphprune.relation import Values
from graphprune.run.portions import run_all
from graphprune.run.runtime import exposing

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
"""Largest relative error by type: rounding of sums taken in another order, nothing more."""
STEP = 2 / 127
"""The same where numbers are quantised on the way: a sum in another order may round to the next step of 8 bits."""


@dataclass
class OutputError:
    """How far one output is from the masked original's, over all runs.

    Attributes:
        name: the output.
        max_abs: largest absolute difference.
        max_rel: that, divided by the largest absolute value of the masked original's output.
        compared_at: where the last operators before the output, which removal has not touched, amplify rounding (a
            saturated sigmoid, a sharp softmax), or make one value of everything: the tensors before them, whose error
            ``max_rel`` then is.
        constant: set where the masked original gives one value everywhere, there too: shapes are proven, values not.
    """

    name: str
    max_abs: float
    max_rel: float
    compared_at: str | None = None
    constant: bool | None = None


def says_nothing(value: Values) -> bool:
    """Whether an output of floats is one value everywhere, or nothing finite, so that comparing it says little."""
    if value.dtype.kind != "f" or value.size < 2:
        return False
    return bool((value == value.flat[0]).all()) or not bool(np.isfinite(value).any())


def compare(
    total: OutputError, expected: Values, found: Values, rounds: bool = False, least: float = 0.0
) -> str | None:
    """Add to an output's error; returns what is wrong, or None.

    Args:
        total: the error so far.
        expected, found: the two runs.
        rounds: whether the model rounds to steps.
        least: tolerance at least, whatever the type of the output: runtimes drop pairs of casts on the way to it.
    """
    if expected.shape != found.shape:
        return f"has shape {found.shape} in place of {expected.shape}"
    absolute, relative, exceeds = difference(expected, found, rounds, least)
    total.max_abs, total.max_rel = max(total.max_abs, absolute), max(total.max_rel, relative)
    return f"is off by {relative:.2g} relative" if exceeds else None


def difference(expected: Values, found: Values, rounds: bool = False, least: float = 0.0) -> tuple[float, float, bool]:
    """Largest absolute and relative difference, and whether they exceed the type's tolerance, or that given.

    NaN and infinities must stand in the same places. Where the model rounds to steps, a step or two are allowed.
    """
    kind = str(expected.dtype)
    if expected.dtype.kind in "OUS":
        same = bool((expected == found).all())
        return (0.0, 0.0, False) if same else (1.0, 1.0, True)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if not (np.isfinite(a) == np.isfinite(b)).all() or not np.array_equal(
        a[~np.isfinite(a)], b[~np.isfinite(b)], equal_nan=True
    ):
        return float("inf"), float("inf"), True
    held = np.isfinite(a)
    absolute = float(np.abs(a[held] - b[held]).max(initial=0.0))
    small = rounds and expected.dtype.kind in "iu" and expected.dtype.itemsize == 1
    scale = 127.0 if small else float(np.abs(a[held]).max(initial=0.0))
    relative = absolute / scale if scale > 0 else (0.0 if absolute == 0 else float("inf"))
    return absolute, relative, relative > max(TOLERANCE.get(kind, 0.0), STEP if rounds else 0.0, least)


def check_repeatable(masked: Model, feeds: Mapping[str, Values], outputs: Sequence[str] | None = None) -> None:
    """Raise InputError where a second run of the same model on the same inputs gives something else."""
    pairs = list(zip(*run_all(masked, [feeds, feeds], outputs), strict=True))  # in one session: else they draw alike
    if not any(_apart(a, b) for a, b in pairs):
        return
    names = [o for n in masked.nodes for o in n.output if o]
    one, two = (dict(zip(names, made, strict=True)) for made in run_all(exposing(masked, names), [feeds, feeds], names))
    first = next((n for n in names if _apart(one[n], two[n])), None)
    if first is None:
        return
    index = masked.producer[first]
    raise InputError(
        f"{masked.name}: node {node_name(masked, index)!r} ({masked.nodes[index].op_type}) gives another {first!r} at "
        "each run on the same inputs, so that no proof can compare what follows; take what is random out of the model, "
        "or go on with --no-proof"
    )


def _apart(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape != b.shape or difference(a, b)[2]
