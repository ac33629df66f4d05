"""The passes that carry a plan over to another file of the same network, and what the first result holds along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.errors import InputError
from graphprune.model import Model, load
from graphprune.passes import carried
from graphprune.passes.contract import Pass
from graphprune.passes.replay import Replayed
from graphprune.passes.state import State
from graphprune.rewrite import transfer
from graphprune.rewrite.plan import GroupPlan, Plan
from graphprune.rewrite.plan import load as load_plan


@dataclass(frozen=True)
class TransferGroups(Pass):
    """Choose the classes whose weights are those that a plan cuts in another file of the same network.

    Attributes:
        plan: a plan file, or a plan.
        original: the model that the plan was made for.
    """

    name: ClassVar[str] = "transfer-groups"
    chooses: ClassVar[bool] = True

    plan: str | Plan
    original: str | Model

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes little time."""
        return ()

    def declares(self) -> None:
        """The other file is read."""
        load(self.original)

    def requires(self, state: State) -> Sequence[str]:
        """The plan is one, and inputs and outputs may shrink: a cache is cut in all files or in none."""
        read = load_plan(self.plan)
        if read.bases:
            return (f"{read.where} changes bases, which are not carried over to other files: prune with --no-rotate",)
        return () if state.job.allow_io else ("a cache may have to shrink: allow_io must be set",)

    def call(self, state: State) -> State:
        """Put the classes into this job's plan."""
        read, first = load_plan(self.plan), load(self.original)
        analysis = state.analysis()
        found = transfer.transfer(read, first, analysis)
        groups = []
        for group in analysis.groups:
            if group.id in found.selection:
                classes = found.selection[group.id]
                groups.append(GroupPlan(group.id, group.kind, group.size, group.statistical, classes))
        notes = [f"{found.weights} weights are those that {read.where} cuts in {first.name}"]
        if found.missing:
            notes.append(
                f"{len(found.missing)} more that it cuts are not in this file ({', '.join(found.missing[:3])})"
            )
        changed = len(read.compensated) + len(read.sparsity) + len((read.distilled or {}).get("weights", ()))
        if changed and not state.will(TakeValues.name):
            notes.append(
                f"the plan fitted, distilled or thinned {changed} weights, which stay as they are here; --fitted takes "
                "their values from its pruned model"
            )
        return state.noting(*notes).having(Replayed(read), plan=replace(state.plan, groups=groups))


@dataclass(frozen=True)
class SameInterface(Pass):
    """Make sure that inputs and outputs which both files have were cut alike."""

    name: ClassVar[str] = "same-interface"

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes no time."""
        return ()

    def call(self, state: State) -> State:
        """Compare what the plans say of them."""
        transfer.check_interface(_read(state), state.plan, state.original)
        return state


@dataclass(frozen=True)
class TakeValues(Pass):
    """Give weights the values that they have in the pruned model of the plan: what was fitted, distilled or thinned.

    Attributes:
        original: the model that the plan was made for.
        fitted: its pruned model.
    """

    name: ClassVar[str] = "take-values"

    original: str | Model
    fitted: str | Model

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes little time."""
        return ()

    def declares(self) -> None:
        """The pruned model is read."""
        load(self.fitted)

    def call(self, state: State) -> State:
        """Take them over; what was added to products, too."""
        read, fitted = _read(state), load(self.fitted)
        found = carried.carry(
            read, load(self.original), fitted, state.analysis(state.original), state.model, state.plan
        )
        left = f"; {len(found.left)} have no equal here ({', '.join(found.left[:3])})" if found.left else ""
        note = f"{found.count} weights and biases have the values that they have in {fitted.name}{left}"
        plan = replace(state.plan, compensated=found.entries)
        return state.noting(note).having(model=found.model, plan=plan)


def _read(state: State) -> Plan:
    replayed = state.found(Replayed)
    if replayed is None:
        raise InputError("no plan is carried over: the pass 'transfer-groups' comes first")
    return replayed.plan
