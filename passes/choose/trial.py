"""Trials: how far the outputs of a model go when one group alone loses some of its classes.

Classes are removed for once, what reads them is adjusted in closed form, and the outputs are compared on a few inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.contractions import Contraction
from graphprune.model import Model
from graphprune.passes.choose.refitted import Refitted
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray, Values
from graphprune.rewrite.removal import Selection
from graphprune.run import calibration
from graphprune.run.runtime import Feeds, run, session

SAMPLES = 16
"""On which outputs are compared."""


def tried(
    analysis: Analysis,
    gone: Mapping[str, IntArray],
    contractions: Sequence[Contraction],
    feeds: Sequence[Feeds],
    progress: Steps = unseen,
) -> dict[str, float]:
    """By group the squared error of the outputs, each beside its variance, once some of its classes are gone.

    Args:
        analysis: of the model.
        gone: by group id the classes.
        contractions: of the model on calibration inputs.
        feeds: some calibration inputs.
        progress: is told after each group how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    if not gone:
        return {}
    some = calibration.first(lambda: feeds, SAMPLES)
    wanted = _outputs(analysis.model.runnable, some)
    found = {}
    for group in (g for g in analysis.groups if g.id in gone):
        model = without(analysis, {group.id: gone[group.id].tolist()}, contractions)
        found[group.id] = _distance(wanted, _outputs(model, some))
        progress(len(found), len(gone))
    return found


def without(analysis: Analysis, selection: Selection, contractions: Sequence[Contraction]) -> Model:
    """The model without some classes, what reads them adjusted by least squares (see ``surgeon``).

    Args:
        analysis: of the model.
        selection: the classes, by group id.
        contractions: of the model on calibration inputs; where none is over a group, nothing makes up for its classes.

    Raises:
        InputError: an axis would be left empty, or a class cannot be removed.
    """
    return Refitted(analysis, contractions).without(selection)


def _outputs(model: Model, feeds: Sequence[Feeds]) -> list[list[Values]]:
    with session(model) as active:
        return [[np.asarray(v, np.float64) for v in run(active, one)] for one in feeds]


def _distance(wanted: list[list[Values]], found: list[list[Values]]) -> float:
    """Mean squared error of all outputs, each beside its variance; outputs whose shapes change say nothing."""
    errors = [
        float(np.square(a - b).sum() / max(np.square(a - a.mean()).sum(), 1e-30))
        for one, other in zip(wanted, found, strict=True)
        for a, b in zip(one, other, strict=True)
        if a.shape == b.shape and a.size
    ]
    return float(np.mean(errors)) if errors else 0.0
