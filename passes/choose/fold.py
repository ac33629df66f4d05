"""The pass that folds constant classes into biases: what no input changes goes without a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.passes.choose import constants
from graphprune.passes.choose.select import Chosen
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import cutting, sizes
from graphprune.passes.state import State


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Give the readers of removed classes that no input changes what these have added to them."""

    name: ClassVar[str] = "fold-constants"

    def phases(self, state: State) -> Sequence[str]:
        """None: it seldom takes time."""
        return ()

    def call(self, state: State) -> State:
        """Fold, and prove it where proofs are asked for; where the proof fails nothing is folded."""
        if not any(entry.removed for entry in state.plan.groups):
            return state
        cut, chosen = cutting(state).last, state.found(Chosen)
        if cut is None:  # a step of the user's came between
            return state
        removed = {id for id, classes in cut.done.plan.selection.items() if classes}
        touched = [g for g in cut.analysis.groups if g.id in removed]
        constant = chosen.constant if chosen is not None else constants.constant(cut.analysis, touched)
        if not constant:
            return state
        tries = sizes(state, cut.analysis)
        model, folded, proof = constants.fold_into_biases(
            cut.analysis, replace(cut.done, model=state.model), constant, tries, state.job.prove, state.job.seed
        )
        told = state.plan.proof if proof is None else {**(state.plan.proof or {}), "folded": proof.to_json()}
        every = _joined(state.plan.folded, cut.told(folded))
        return replace(state, model=model, plan=replace(state.plan, folded=every, proof=told))


def _joined(one: Mapping[str, Sequence[int]], other: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Classes by group of two rounds."""
    return {id: sorted({*one.get(id, ()), *other.get(id, ())}) for id in dict.fromkeys([*one, *other])}
