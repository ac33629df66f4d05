"""The pass that removes: classes of groups go, others change places, as the plan says; then it is proven.

A recipe may cut in rounds. The plan always speaks of the model that the first round was cut from: each round cuts what
the plan has more of than the rounds before, and is proven by itself; after the last one the plan as a whole is redone
on the original's weights and proven too, which is what ``apply`` will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.analysis import Analysis, cost
from graphprune.analysis.blocks import grown
from graphprune.analysis.cost import Cost
from graphprune.errors import FaultError
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import Cutting, Round, Unfitted, further, named, pending, sizes
from graphprune.passes.state import State
from graphprune.proof import proof
from graphprune.proof.proof import Proof
from graphprune.rewrite import lineage
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import Rewritten, described, rewrite
from graphprune.run import sizing


@dataclass(frozen=True)
class Cut(Pass):
    """Remove the classes that the plan names and that are still there, and reorder others."""

    name: ClassVar[str] = "cut"

    def requires(self, state: State) -> Sequence[str]:
        """Something is chosen between it and the next, and no step changes what the plan speaks of."""
        following = next((k for k, one in enumerate(state.ahead) if isinstance(one, Cut)), None)
        if following is None:
            return ()
        between = state.ahead[:following]
        if not any(one.chooses for one in between):
            return ("nothing is chosen between it and the next 'cut'; put a 'select' there, or leave one out",)
        strange = next((one for one in between if one.rebases), None)
        if strange is None:
            return ()
        called = getattr(strange, "function", strange.name)
        return (
            f"{called!r} stands between it and the next 'cut', which then could not tell what it removes in terms of "
            "the original; put it behind the last 'cut', or run a second recipe",
        )

    def call(self, state: State) -> State:
        """Rewrite the model by the plan's groups."""
        earlier = state.found(Cutting)
        analysis, plan = (state.analysis() if earlier is None else earlier.analysis), state.plan
        done = rewrite(analysis, plan.selection, plan.orders)
        if earlier is None:
            made, own = done, Round(analysis, done)
        else:
            own = further(state, earlier)
            made = replace(done, model=own.done.model, plan=named(done.plan, analysis.model, own.done.model))
            differs = lineage.disagreement(earlier.done.removal, own.analysis, own.done.removal, done.removal)
            if differs is not None:
                raise FaultError(f"{state.original.name}: {differs}: the rounds remove other elements than their plan")
        whole = replace(made, plan=_completed(state, made.plan, analysis, earlier, own))
        left = Cost(cost.parameters(whole.model), cost.macs(analysis, whole.removal.sizes()), 0)
        costs = (*(() if earlier is None else earlier.costs), left)
        after = state.having(Cutting(analysis, whole, own, costs))
        if earlier is not None:
            if state.found(Unfitted) is not None:
                after = after.having(Unfitted(done.model))
            after = replace(after, analyses={k: v for k, v in state.analyses.items() if v[0] is state.original})
        return replace(after, model=whole.model, plan=whole.plan)

    def proves(self, state: State) -> bool:
        """Where proofs are asked for."""
        return state.job.prove

    def ensures(self, before: State, after: State) -> State:
        """The pruned model is what the masked original is; of several rounds each is, and all of them together."""
        found = after.found(Cutting)
        assert found is not None
        if not (after.job.prove and after.plan.groups):
            return after
        own = found.last
        assert own is not None
        if own.done.plan.groups:
            after = _proven(after, own.analysis, own.done)
            after = replace(after, plan=_told_round(after.plan, after.found(Proof)))
        if found.rounds > 1 and not after.will(self.name):
            changed = after.found(Unfitted) is not None or bool(after.plan.folded)
            done = rewrite(found.analysis, after.plan.selection, after.plan.orders) if changed else found.done
            after = _proven(after, found.analysis, done)
        return after


_BESIDE = ("blocks", "folded", "centred", "bases")
"""What else of a model was proven, beside a cut."""


def _proven(state: State, analysis: Analysis, done: Rewritten) -> State:
    """The state with a proof of a cut."""
    tries = sizes(state, analysis)
    edges = sizing.edges(analysis.model, analysis.witness.first.inputs, grown(analysis))
    found = proof.prove(analysis.model, done.model, done.plan, done.removal, tries, state.job.seed, edges)
    beside = {key: told for key, told in (state.plan.proof or {}).items() if key in _BESIDE}
    return state.having(found, plan=replace(state.plan, proof={**found.to_json(), **beside}))


def _told_round(plan: Plan, found: Proof | None) -> Plan:
    """The plan with what the proof of its last round found."""
    if found is None or not plan.rounds:
        return plan
    return replace(plan, rounds=[*plan.rounds[:-1], {**plan.rounds[-1], "proof": found.worst}])


def _completed(state: State, made: Plan, analysis: Analysis, earlier: Cutting | None, own: Round) -> Plan:
    """The plan of a rewrite with what else the plan of the job says."""
    plan = state.plan
    scores = {entry.id: entry.score for entry in plan.groups}
    for entry in made.groups:
        entry.score = scores.get(entry.id)
    renewed = {one["name"] for one in made.interface}
    rounds = list(plan.rounds)
    if earlier is not None or state.will(Cut.name):
        rounds.append({"removed": {entry.id: entry.removed for entry in pending(state)}})
    return replace(
        made,
        model=described(state.analysis(state.original)),
        blocks=plan.blocks,
        interface=[one for one in plan.interface if one["name"] not in renewed] + made.interface,
        bases=plan.bases,
        folded=plan.folded,
        compensated=plan.compensated,
        proof=plan.proof,
        rounds=rounds,
        choices=plan.choices,
        matrices=plan.matrices,
    )
