"""A model in another basis is the same model: run beside the one that it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphprune.analysis import Analysis
from graphprune.model import Model
from graphprune.proof import proof
from graphprune.proof.proof import Proof
from graphprune.relation import Shape
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.removal import Removal


def prove(analysis: Analysis, model: Model, tries: Sequence[Mapping[str, Shape]], seed: int = 0) -> Proof:
    """Show that a model does what the analysed one does: nothing is masked, and nothing was removed.

    Args:
        analysis: of the model as it was.
        model: as it is.
        tries: input shapes to run at.
        seed: of the generated inputs.

    Raises:
        ProofError: it does not; names the first tensor that differs.
    """
    return proof.prove(analysis.model, model, Plan({}), Removal(analysis, {}), tries, seed)
