"""A model in another basis is the same model: run beside the one that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphprune.analysis import Analysis
from graphprune.model import Model
from graphprune.proof import proof
from graphprune.proof.proof import Proof
from graphprune.relation import Shape
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.removal import Removal


def prove(
    analysis: Analysis, model: Model, groups: Iterable[str], tries: Sequence[Mapping[str, Shape]], seed: int = 0
) -> Proof:
    """Show that a model does what the analysed one does: nothing is masked, and nothing was removed.

    Args:
        analysis: of the model as it was.
        model: as it is.
        groups: ids of those whose basis was changed: outputs are compared before what lies behind them, where that runs
            into saturation.
        tries: input shapes to run at.
        seed: of the generated inputs.

    Raises:
        ProofError: it does not; names the first tensor that differs.
    """
    removal = Removal(analysis, {})
    for id in groups:
        group = analysis.group(id)
        for vertex in group.labels if group is not None else ():
            removal.moved[vertex] = np.arange(analysis.web.sizes[vertex])  # touched, though all stays in its place
    return proof.prove(analysis.model, model, Plan({}), removal, tries, seed)
