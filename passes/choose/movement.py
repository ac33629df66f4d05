"""Movement: which weights a short training makes larger, and which it takes towards zero.

Training wants a weight w with gradient g gone where a step makes it smaller, and so, summed over steps, it is worth

    S = -sum w g

(Sanh, Wolf and Rush, Movement Pruning, NeurIPS 2020). No labels are asked for: what is learnt is what the original
makes. A model is at its minimum towards itself, where g is zero; so the training starts from weights that are each
scaled by a random factor, the way to zero that a removal goes, and S says which of them are pulled back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.gradients.errors import GradientError
from graphprune.gradients.expansion import prepared
from graphprune.gradients.table import GRADIENT
from graphprune.gradients.training import Trainer, float_constants, trainer
from graphprune.model import Model
from graphprune.model.interchange import whole
from graphprune.passes.choose.backward import alike
from graphprune.passes.distill.losses import TEACHER, Measure, measure, with_loss
from graphprune.relation import Values
from graphprune.run import samples
from graphprune.run.runtime import Feeds, RefusedError, run, session

STEPS = 30
"""Of the training."""
RATE = 1e-2
"""How far a step goes, beside the size of what a weight's tensor holds."""
BATCH = 16
"""Samples of a step, or the rest of a run more."""
LEAST = 0.5
"""Factors that weights start with lie between this and 1."""


@dataclass(frozen=True)
class Moved:
    """What a short training did.

    Attributes:
        worth: by weight what each of its elements is worth, ``S``; below zero where it moves towards zero.
        stopped: weights that have no gradient, and why.
    """

    worth: Mapping[str, Values]
    stopped: Mapping[str, str] = field(default_factory=dict)


def moved(model: Model, feeds: Sequence[Feeds], names: Collection[str], seed: int = 0) -> Moved:
    """Train all weights that are asked for towards what the model makes, from a state that is not its own.

    Args:
        model: as it runs.
        feeds: inputs.
        names: weights.
        seed: of where it starts, and of what is drawn.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    shapes = alike(feeds)
    proto = prepared(whole(model), shapes)[0]
    there = float_constants(proto)
    stopped = {name: f"{name!r} is no float constant" for name in names if name not in there}
    asked = [name for name in names if name in there]
    taught, measures = _taught(model, feeds)
    if not measures or not asked:
        return Moved({}, {**stopped, **dict.fromkeys(asked, "no output holds floats that could be learnt")})
    try:
        one = trainer(with_loss(proto, measures, shapes), asked)
    except (GradientError, RefusedError) as error:
        return Moved({}, {**stopped, **dict.fromkeys(asked, str(error))})
    stopped |= {stop.tensor: str(stop) for stop in one.stopped}
    worth = _course(one, taught, seed) if one.adam.weights else {}
    stopped |= {n: f"the gradient by {n!r} is not finite" for n, value in worth.items() if not np.isfinite(value).all()}
    return Moved({name: value for name, value in worth.items() if name not in stopped}, stopped)


def _taught(model: Model, feeds: Sequence[Feeds]) -> tuple[list[Feeds], dict[str, Measure]]:
    """Inputs with what the model makes of them, and how that is compared."""
    tensors = [o.name for o in model.graph.output if o.type.tensor_type.elem_type in GRADIENT]
    if not tensors:
        return [], {}
    with session(model) as active:
        made = [dict(zip(tensors, run(active, one, tensors), strict=True)) for one in feeds]
    found = {name: measure([values[name] for values in made]) for name in tensors}
    measures = {name: one for name, one in found.items() if one is not None}
    return [
        {**one, **{TEACHER + n: np.asarray(values[n], np.float32) for n in measures}}
        for one, values in zip(feeds, made, strict=True)
    ], measures


def _course(one: Trainer, taught: Sequence[Feeds], seed: int) -> dict[str, Values]:
    """What each element of the weights is worth."""
    adam, rng = one.adam, np.random.default_rng(seed)
    adam.flat *= rng.uniform(LEAST, 1, adam.flat.shape).astype(np.float32)
    worth = np.zeros(adam.flat.shape)
    size = max(BATCH // samples.count(taught[0]), 1)
    for _ in range(STEPS):
        drawn = rng.permutation(len(taught))[:size]
        one.learn([taught[k] for k in drawn])
        worth -= adam.flat * adam.gradient
        adam.step(RATE)
    return {name: worth[adam.span[adam.owner[name]]].reshape(value.shape) for name, value in adam.weights.items()}
