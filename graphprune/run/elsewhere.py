"""Inputs that are not like the calibration inputs, made of them: to see what holds beyond these.

Floats are scaled, or get noise; whole numbers of more than two kinds (tokens, not masks) change places within a sample;
and what is made up for who has no inputs (see ``synthetic``) is furthest away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run import synthetic
from graphprune.run.runtime import Feeds

_SCALE, _NOISE = 1.5, 0.5
"""What floats are multiplied by; noise beside their standard deviation."""


def elsewhere(model: Model, feeds: Feeds, seed: int = 0) -> Iterator[tuple[str, dict[str, Values]]]:
    """Inputs of one run, changed in several ways, each with its name; ways that change nothing are left out.

    Args:
        model: whose inputs they are.
        feeds: the inputs.
        seed: of noise, and of places.
    """
    rng = np.random.default_rng(seed)
    ways = {
        "scaled": {n: (v * _SCALE).astype(v.dtype) for n, v in feeds.items() if _measured(v)},
        "noisy": {n: _noisy(v, rng) for n, v in feeds.items() if _measured(v)},
        "shuffled": {n: rng.permuted(v, axis=v.ndim - 1) for n, v in feeds.items() if _counted(v)},
    }
    for name, changed in ways.items():
        if changed:
            yield name, {**feeds, **changed}
    shapes = {n: tuple(v.shape) for n, v in feeds.items()}
    made: Mapping[str, Values] = next(synthetic.inputs(model, shapes, seed, 1))
    changed = {n: made[n].astype(v.dtype) for n, v in feeds.items() if n in made and (_measured(v) or _counted(v))}
    if changed:
        yield synthetic.NAME, {**feeds, **changed}


def _noisy(value: Values, rng: np.random.Generator) -> Values:
    noise = rng.standard_normal(value.shape) * (_NOISE * float(value.std(dtype=np.float64)))
    return np.asarray(value + noise, value.dtype)


def _measured(value: Values) -> bool:
    """Whether a tensor holds measurements: finite floats of more than two values, which a mask has."""
    return value.dtype.kind == "f" and bool(np.isfinite(value).all()) and len(np.unique(value)) > 2


def _counted(value: Values) -> bool:
    """Whether a tensor holds numbers of things along its last axis, and is no mask."""
    return value.dtype.kind in "iu" and value.ndim > 1 and value.shape[-1] > 1 and len(np.unique(value)) > 2
