"""What was cut of a model so far, round by round, and how what is chosen of it now is told in terms of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphprune.analysis import Analysis, analyze, cost
from graphprune.analysis.cost import Cost
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes.state import State
from graphprune.relation import Shape
from graphprune.rewrite import lineage
from graphprune.rewrite.lineage import Ancestor
from graphprune.rewrite.plan import GroupPlan, Plan
from graphprune.rewrite.removal import Removal
from graphprune.rewrite.rewrite import Rewritten, rewrite
from graphprune.run import calibration, sizing


@dataclass(frozen=True)
class Round:
    """What one cut of several did.

    Attributes:
        analysis: of the model that it cut.
        done: the rewrite, in terms of that model.
        ancestors: what the groups of that model were in the first one; None where it is the first one.
    """

    analysis: Analysis
    done: Rewritten
    ancestors: Mapping[str, Ancestor] | None = None

    def told(self, classes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Classes of groups of the model that it cut as those of the first one."""
        if self.ancestors is None:
            return {id: list(own) for id, own in classes.items()}
        return {self.ancestors[id].group.id: self.ancestors[id].told(own) for id, own in classes.items()}


@dataclass(frozen=True)
class Cutting:
    """What was cut.

    Attributes:
        analysis: of the model that it was cut from, by the first round.
        done: all that was cut from it, in its terms.
        last: the last round by itself, None where nothing was cut.
        costs: what was left after each round.
    """

    analysis: Analysis
    done: Rewritten
    last: Round | None = None
    costs: tuple[Cost, ...] = ()

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(self.costs)


@dataclass(frozen=True)
class Base:
    """The model that has the structure of the one as it is now, but for what was cut since; the original by default."""

    model: Model


@dataclass(frozen=True)
class Reference:
    """The model that does what the original does, in the bases that it is cut in: what fits compare tensors with."""

    model: Model


@dataclass(frozen=True)
class Restructured:
    """Nodes came or axes went that no cut tells of: what the model costs is asked of itself."""


@dataclass(frozen=True)
class Unfitted:
    """The model as it is now, with the weights of the original."""

    model: Model


def cutting(state: State) -> Cutting:
    """What was cut of the model as it is now; where nothing was, a cut of nothing."""
    found = state.found(Cutting)
    if found is None:
        base = state.found(Base)
        analysis = state.analysis(state.original if base is None else base.model)
        return Cutting(analysis, Rewritten(state.model, state.plan, Removal(analysis, {})))
    return replace(found, done=replace(found.done, model=state.model, plan=state.plan))


def macs(state: State) -> int:
    """Multiply-accumulates of the model as it is now."""
    if state.found(Restructured) is not None:
        return cost.macs(state.analysis())
    cut = cutting(state)
    return cost.macs(cut.analysis, cut.done.removal.sizes())


def unfitted(state: State) -> State:
    """The state before a pass that fits: where there are more rounds it knows the model with the original's weights."""
    more = any(one.name in ("cut", "sparsify") for one in state.ahead)
    return state.having(Unfitted(state.model)) if more and state.found(Unfitted) is None else state


def further(state: State, earlier: Cutting) -> Round:
    """Cut what the plan has more of than was cut by earlier rounds."""
    now, kin = descent(state, earlier)
    here = {one.group.id: (id, one) for id, one in kin.items()}
    selection, orders = dict[str, list[int]](), dict[str, list[int]]()
    for entry in pending(state):
        if entry.id not in here:
            raise InputError(
                f"{state.original.name}: group {entry.id!r} cannot be cut further: it is no group of what earlier "
                "rounds have left"
            )
        id, one = here[entry.id]
        selection[id] = sorted(one.here(entry.removed))
        if entry.order is not None:
            orders[id] = one.here(entry.order)
    return Round(now, rewrite(now, selection, orders), kin)


def pending(state: State) -> list[GroupPlan]:
    """What of the plan is still to be cut: groups with the classes that are to go, of those that are still there.

    An order stands there where it is another than that which was cut.
    """
    earlier = state.found(Cutting)
    if earlier is None:
        return list(state.plan.groups)
    cut = {entry.id: entry for entry in earlier.done.plan.groups}
    found = []
    for entry in state.plan.groups:
        before = cut.get(entry.id)
        gone = set() if before is None else set(before.removed)
        held = None if before is None or before.order is None else [c for c in before.order if c not in entry.removed]
        left = replace(
            entry,
            removed=[c for c in entry.removed if c not in gone],
            order=None if entry.order == held else entry.order,
        )
        if left.removed or left.order:
            found.append(left)
    return found


def descent(state: State, earlier: Cutting) -> tuple[Analysis, dict[str, Ancestor]]:
    """The analysis of the model as it is now at the sizes of the first one, and what its groups were there."""
    first, removal, now = earlier.analysis, earlier.done.removal, state.analysis()
    wanted = {n: removal.shape(n) or first.witness.inputs[n] for n in now.witness.inputs}
    if any(now.witness.inputs[n] != shape for n, shape in wanted.items()):
        now = analyze(state.model, wanted, allow_io=state.job.allow_io)
        state.remember(state.model, now)
    return now, lineage.ancestors(removal, now)


def joined(plan: Plan, entries: Sequence[GroupPlan]) -> Plan:
    """The plan with more classes that are to go, each group once; an order loses those that go."""
    more = {entry.id: entry for entry in entries}
    groups = []
    for entry in plan.groups:
        new = more.pop(entry.id, None)
        if new is not None:
            removed = sorted({*entry.removed, *new.removed})
            order = None if entry.order is None else [c for c in entry.order if c not in removed]
            entry = replace(entry, removed=removed, order=order, score=_scored(entry, new))
        groups.append(entry)
    return replace(plan, groups=[*groups, *more.values()])


def _scored(entry: GroupPlan, new: GroupPlan) -> list[float] | None:
    """Scores of a group: of each class that of the last round that ranked it."""
    if entry.score is None or new.score is None:
        return new.score or entry.score
    return [old if c in entry.removed else now for c, (old, now) in enumerate(zip(entry.score, new.score, strict=True))]


def named(plan: Plan, first: Model, now: Model) -> Plan:
    """The plan with the names that constants have in a model that was cut in rounds."""
    makers = {node.output[0]: node for node in now.nodes if node.output}
    operators = {node.output[0]: (node.domain, node.op_type) for node in first.nodes if node.output}
    slices = []
    for entry in plan.slices:
        node = makers.get(entry.consumer)
        alike = node is not None and (node.domain, node.op_type) == operators.get(entry.consumer)
        read = now.root(node.input[entry.input]) if node is not None and alike else ""
        slices.append(replace(entry, result=read) if read in now.sources else entry)
    return replace(plan, slices=slices)


def sizes(state: State, analysis: Analysis) -> list[dict[str, Shape]]:
    """Input shapes at which a proof may run, the likeliest first."""
    witness = analysis.witness
    others = sizing.alternatives(analysis.model, calibration.still(state.job.input_shapes, analysis.model))
    found: list[dict[str, Shape]] = []
    for one in (witness.first.inputs, witness.second.inputs, *others):
        if one not in found:
            found.append(one)
    return found
