"""The pass that removes: classes of groups go, others change places, as the plan says; then it is proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.analysis import Analysis
from graphprune.model import Model
from graphprune.passes.contract import Pass
from graphprune.passes.state import State
from graphprune.proof import proof
from graphprune.relation import Shape
from graphprune.rewrite.removal import Removal
from graphprune.rewrite.rewrite import Rewritten, described, rewrite
from graphprune.run import calibration, sizing


@dataclass(frozen=True)
class Cutting:
    """What was cut.

    Attributes:
        analysis: of the model that it was cut from.
        done: the rewrite.
    """

    analysis: Analysis
    done: Rewritten


@dataclass(frozen=True)
class Base:
    """The model that has the structure of the one as it is now, but for what was cut since; the original by default."""

    model: Model


@dataclass(frozen=True)
class Cut(Pass):
    """Remove the classes that the plan names, and reorder others."""

    name: ClassVar[str] = "cut"

    def requires(self, state: State) -> Sequence[str]:
        """There is no other ahead: a plan names classes and slices of the original, once."""
        again = any(isinstance(one, Cut) for one in state.ahead)
        return ("a recipe cuts once; put all that chooses before it, or run a second recipe",) if again else ()

    def call(self, state: State) -> State:
        """Rewrite the model by the plan's groups."""
        analysis, plan = state.analysis(), state.plan
        done = rewrite(analysis, plan.selection, plan.orders)
        scores = {entry.id: entry.score for entry in plan.groups}
        for entry in done.plan.groups:
            entry.score = scores.get(entry.id)
        made = replace(
            done.plan,
            model=described(state.analysis(state.original)),
            blocks=plan.blocks,
            interface=plan.interface + done.plan.interface,
            proof=plan.proof,
        )
        done = replace(done, plan=made)
        return state.having(Cutting(analysis, done), model=done.model, plan=made)

    def proves(self, state: State) -> bool:
        """Where proofs are asked for."""
        return state.job.prove

    def ensures(self, before: State, after: State) -> State:
        """The pruned model is what the masked original is."""
        cutting = after.found(Cutting)
        assert cutting is not None
        if not (after.job.prove and after.plan.groups):
            return after
        done, tries = cutting.done, sizes(after, cutting.analysis)
        found = proof.prove(cutting.analysis.model, done.model, done.plan, done.removal, tries, after.job.seed)
        told = {**found.to_json(), **(after.plan.proof or {})}
        return after.having(found, plan=replace(after.plan, proof=told))


def cutting(state: State) -> Cutting:
    """What was cut of the model as it is now; where nothing was, a cut of nothing."""
    found = state.found(Cutting)
    if found is None:
        base = state.found(Base)
        analysis = state.analysis(state.original if base is None else base.model)
        return Cutting(analysis, Rewritten(state.model, state.plan, Removal(analysis, {})))
    return replace(found, done=replace(found.done, model=state.model, plan=state.plan))


def sizes(state: State, analysis: Analysis) -> list[dict[str, Shape]]:
    """Input shapes at which a proof may run, the likeliest first."""
    witness = analysis.witness
    others = sizing.alternatives(analysis.model, calibration.still(state.job.input_shapes, analysis.model))
    found: list[dict[str, Shape]] = []
    for one in (witness.first.inputs, witness.second.inputs, *others):
        if one not in found:
            found.append(one)
    return found
