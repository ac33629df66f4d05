"""The pass at the end of every job that removes: what came of it is smaller than what was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphprune.analysis import Analysis, cost
from graphprune.analysis.cost import Cost
from graphprune.errors import InputError
from graphprune.model import node_name
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import cutting, macs
from graphprune.passes.state import State
from graphprune.rewrite.rewrite import Rewritten


@dataclass(frozen=True)
class Smaller(Pass):
    """Make sure that removal has made the model smaller."""

    name: ClassVar[str] = "smaller"

    def phases(self, state: State) -> Sequence[str]:
        """None: it takes no time."""
        return ()

    def call(self, state: State) -> State:
        """Compare costs, where classes were removed."""
        if not any(entry.removed for entry in state.plan.groups):
            return state
        before, after = costs(state)
        grown = after.parameters > before.parameters
        if not grown and (after.parameters < before.parameters or after.macs < before.macs):
            return state
        cut = cutting(state)
        raise InputError(
            f"{state.original.name}: removal would not make it smaller: {before.parameters:,} parameters would be "
            f"{after.parameters:,}, and {before.macs:,} MACs {after.macs:,}{_copied(cut.analysis, cut.done)}. Nothing "
            "was written; leave groups out by --exclude, or remove more"
        )


def costs(state: State) -> tuple[Cost, Cost]:
    """What the original costs, and what the model costs as it is now, without the bytes of a file."""
    original = state.analysis(state.original)
    before = Cost(cost.parameters(original.model), cost.macs(original), cost.file_bytes(original.model))
    return before, Cost(cost.parameters(state.model), macs(state), 0)


def _copied(analysis: Analysis, done: Rewritten) -> str:
    """The weight of which most elements were added in copies, and who reads it; nothing where there is none."""
    there, results = done.model.sources, {s.source: {s.source} & set(done.model.sources) for s in done.plan.slices}
    for entry in done.plan.slices:
        results[entry.source].add(entry.result)
    added = {
        name: sum(cost.elements(there[r]) for r in own if r in there) - cost.elements(analysis.model.sources[name])
        for name, own in results.items()
    }
    name = max(added, key=added.__getitem__, default="")
    if not name or added[name] <= 0:
        return ""
    readers = [s.consumer for s in done.plan.slices if s.source == name]
    nodes = ", ".join(repr(node_name(analysis.model, analysis.model.producer[o])) for o in dict.fromkeys(readers))
    return f", since weight {name!r} is cut in {len(results[name])} ways, each with a copy of its own (nodes {nodes})"
