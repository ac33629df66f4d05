"""A model in another basis is the same model: run beside the one that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.model import Model
from graphprune.passes.rounds import sizes
from graphprune.passes.state import State
from graphprune.proof import proof
from graphprune.proof.proof import Proof
from graphprune.relation import Shape
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.removal import Removal


def proven(before: State, after: State, bases: str, entry: str) -> State:
    """The state with the proof that a pass left the model what it was; as it is where none is asked for.

    Args:
        before, after: the pass.
        bases: which entry of ``Plan.bases`` names the groups that it changed.
        entry: the entry of ``Plan.proof``.

    Raises:
        ProofError: it did not.
    """
    if not after.job.prove or after.model is before.model:
        return after
    analysis, groups = before.analysis(), after.plan.bases.get(bases, ())
    found = prove(analysis, after.model, groups, sizes(before, analysis), after.job.seed)
    told: dict[str, Any] = {**(after.plan.proof or {}), entry: found.to_json()}
    return replace(after, plan=replace(after.plan, proof=told))


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
