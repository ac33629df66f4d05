"""A model in another basis is the same model: the proof of both passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphprune.passes.rounds import sizes
from graphprune.passes.state import State
from graphprune.proof import same


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
    analysis = before.analysis()
    groups = [group for group in analysis.groups if group.id in after.plan.bases.get(bases, ())]
    nodes = {analysis.web.dim(v)[0] for group in groups for v in group.labels if v >= analysis.web.axes}
    found = same.prove(analysis, after.model, sorted(nodes), sizes(before, analysis), after.job.seed)
    told: dict[str, Any] = {**(after.plan.proof or {}), entry: found.to_json()}
    return replace(after, plan=replace(after.plan, proof=told))
