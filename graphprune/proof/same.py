"""A model that was rewritten, and lost nothing, is the same model: run beside the one that it was made of."""

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
    analysis: Analysis, made: Model, nodes: Iterable[int], tries: Sequence[Mapping[str, Shape]], seed: int = 0
) -> Proof:
    """Show that a model does what the analysed one does: nothing is masked, and nothing was removed.

    Args:
        analysis: of the model as it was.
        made: as it is.
        nodes: that were changed, or read what was: outputs are compared before what lies behind these, where that runs
            into saturation.
        tries: input shapes to run at.
        seed: of the generated inputs.

    Raises:
        ProofError: it does not; names the first tensor that differs.
        InputError: ONNX Runtime cannot run the original.
    """
    net, removal = analysis.web, Removal(analysis, {})
    for node in nodes:
        relation = net.relations[node]
        for vertex in range(net.dim_start[node], net.dim_start[node] + len(relation.dims) if relation else 0):
            removal.moved[vertex] = np.arange(net.sizes[vertex])  # touched, though all stays in its place
    return proof.prove(analysis.model, made, Plan({}), removal, tries, seed)
