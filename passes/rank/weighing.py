"""What outputs of the model lose with what a weight makes: losses of different weights on one scale.

A change d of what a weight makes changes the outputs by ``J d``. With random signs (see
``graphprune.passes.choose.backward``) the squares of gradients g are ``E g^2 = diag(J^T J)``, each output beside its
variance. Where changes of single elements have nothing to do with each other, outputs lose ``sum E d^2 E g^2``; d is
taken to lie on all elements alike. Real changes have to do with each other, and more is lost: the numbers compare
weights, and are no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.analysis import Analysis
from graphprune.gradients.terms import Term
from graphprune.passes.choose.attribution import DRAWS
from graphprune.passes.choose.backward import Scene, backward
from graphprune.passes.rank.spectra import Spectrum
from graphprune.run import calibration, samples
from graphprune.run.calibration import Batches
from graphprune.run.moments import FloatArray

SAMPLES = 32
"""Inputs whose gradients are looked at."""


def weigh(analysis: Analysis, found: Sequence[Spectrum], batches: Batches, seed: int = 0) -> FloatArray | None:
    """For each weight the squared error of the outputs, beside their variance, if all that it makes is lost.

    Args:
        analysis: of the model.
        found: what weights lose on inputs.
        batches: gives the calibration inputs.
        seed: of random signs.

    Returns:
        A number for each weight; None where gradients of one of them are not to be had.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    names = [one.site.nodes(analysis.model) for one in found]
    feeds = list(calibration.first(batches, SAMPLES))
    made = backward(analysis.model.runnable, feeds, {n: _squared for own in names for n in own}, seed, DRAWS)
    if made.stopped:
        return None
    squares: dict[str, float] = {}
    for values in made.runs:
        for name, value in values.items():
            squares[name] = squares.get(name, 0.0) + float(value)
    count = DRAWS * sum(samples.count(one) for one in feeds)
    worth = [
        one.energy * sum(squares[n] for n in own) / one.site.outputs for one, own in zip(found, names, strict=True)
    ]
    result = np.asarray(worth) / max(count, 1)
    return result if np.isfinite(result).all() and result.any() else None


def _squared(gradient: Term, scene: Scene) -> Term:
    return scene.tape.op("ReduceSum", gradient * gradient, keepdims=0, dims=())
