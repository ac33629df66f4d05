"""The passes that stand in for the choosers where a plan is applied again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.errors import InputError
from graphprune.passes.contract import Pass
from graphprune.passes.rank.low_rank import LowRank
from graphprune.passes.state import State
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan, load


@dataclass(frozen=True)
class Replayed:
    """The plan that is applied."""

    plan: Plan


@dataclass(frozen=True)
class ReplayBlocks(Pass):
    """Take the blocks that are to go from a plan, and everything else that is told of the job.

    Attributes:
        plan: a plan file, or a plan.
    """

    name: ClassVar[str] = "replay-blocks"

    plan: str | Plan

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes no time."""
        return ()

    def requires(self, state: State) -> Sequence[str]:
        """The plan is one, and is about inputs that the model has."""
        read = load(self.plan)
        replay.check_sparsity(read)
        replay.check_inputs(read, state.original)
        return ()

    def call(self, state: State) -> State:
        """Put the plan's blocks into this job's plan."""
        read = load(self.plan)
        if read.blocks:
            replay.check_blocks(read, state.analysis())
        notes = [*replay.notes(read, state.analysis().model), *_left_out(read)]
        return state.noting(*notes).having(Replayed(read), plan=replace(state.plan, blocks=list(read.blocks)))


@dataclass(frozen=True)
class ReplayGroups(Pass):
    """Take the classes that are to go, and new orders, from the plan that is applied."""

    name: ClassVar[str] = "replay-groups"
    chooses: ClassVar[bool] = True

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes no time."""
        return ()

    def call(self, state: State) -> State:
        """Put the plan's groups into this job's plan."""
        read = replayed(state)
        replay.check_groups(read, state.analysis())
        groups = [replace(entry) for entry in read.groups]
        return replace(state, plan=replace(state.plan, groups=groups, choices=list(read.choices)))


@dataclass(frozen=True)
class SameSlices(Pass):
    """Make sure that what was cut is what the slices of the plan that is applied say."""

    name: ClassVar[str] = "same-slices"

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes no time."""
        return ()

    def call(self, state: State) -> State:
        """Compare the slices of both plans; a plan without any says nothing."""
        read = replayed(state)
        wanted = {(s.consumer, s.input): (s.removed, s.order) for s in read.slices}
        found = {(s.consumer, s.input): (s.removed, s.order) for s in state.plan.slices}
        for key in sorted(set(wanted) | set(found)) if wanted else ():
            if wanted.get(key) != found.get(key):
                raise InputError(
                    f"{read.where}: does not fit {state.original.name}: at slices: it cuts input {key[1]} of the node "
                    f"that makes {key[0]!r} otherwise than its groups come to here; if its groups were edited, empty "
                    "its 'slices'"
                )
        return state


def replayed(state: State) -> Plan:
    """The plan that is applied.

    Raises:
        InputError: there is none.
    """
    found = state.found(Replayed)
    if found is None:
        raise InputError("no plan is applied: the pass 'replay-blocks' comes first")
    return found.plan


def _left_out(plan: Plan) -> list[str]:
    """What of a plan is not done again."""
    notes = []
    if plan.compensated:
        notes.append(
            f"the plan fitted {len(plan.compensated)} weights to calibration inputs; here they are not, and the "
            "result is less accurate"
        )
    if plan.distilled is not None:
        count = len(plan.distilled["weights"])
        notes.append(
            f"the plan distilled {count} weights on calibration inputs; here they are not, and accuracy is less"
        )
    if plan.factored and LowRank.again(plan.factored) is None:
        notes.append(
            f"the plan made products of two of {len(plan.factored)} weights on calibration inputs; they stay whole "
            "here: run 'graphprune prune --low-rank' with such inputs"
        )
    methods = sorted({entry["method"] for entry in plan.sparsity if not replay.masks_again(entry)})
    if methods:
        notes.append(
            f"the plan chose sparse weights on calibration inputs ({', '.join(methods)}); they stay dense here: run "
            "'graphprune sparsify' with such inputs"
        )
    return notes
