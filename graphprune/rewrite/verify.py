"""What holds of every plan that a rewrite makes of an analysis: it stays within the groups, the classes and the axes.

The plan as a file has its schema, and one that a user edited is answered by
:class:`graphprune.rewrite.removal.Removal`; here a plan of the program's own is looked at, so what breaks is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from graphprune.analysis import Analysis
from graphprune.errors import FaultError
from graphprune.rewrite.plan import Plan

Check = Callable[[Analysis, Plan], Iterator[str]]


def verify(analysis: Analysis, plan: Plan) -> None:
    """Look at every invariant of a plan.

    Args:
        analysis: of the model that the plan's indices count in.
        plan: what was done to it.

    Raises:
        FaultError: one does not hold; says which, and where.
    """
    for statement, check in INVARIANTS.items():
        where = next(check(analysis, plan), None)
        if where is not None:
            raise FaultError(f"{analysis.model.name}: the plan is out of bounds: {statement}: {where}")


def _known(analysis: Analysis, plan: Plan) -> Iterator[str]:
    seen: set[str] = set()
    for entry in plan.groups:
        group = analysis.group(entry.id)
        if group is None or (group.kind, group.size, group.statistical) != (entry.kind, entry.size, entry.statistical):
            yield f"group {entry.id!r}"
        if entry.id in seen:
            yield f"group {entry.id!r} twice"
        seen.add(entry.id)


def _free(analysis: Analysis, plan: Plan) -> Iterator[str]:
    for entry in plan.groups:
        group = analysis.group(entry.id)
        if group is None:
            continue
        inside = _ascends(entry.removed, group.size) and len(entry.removed) < group.size
        if not inside or group.pinned[entry.removed].any():
            yield f"group {entry.id!r}"


def _ordered(analysis: Analysis, plan: Plan) -> Iterator[str]:
    for entry in plan.groups:
        if entry.order is not None and sorted([*entry.order, *entry.removed]) != list(range(entry.size)):
            yield f"group {entry.id!r}"


def _constants(analysis: Analysis, plan: Plan) -> Iterator[str]:
    inputs = {next((o for o in n.output if o), ""): list(n.input) for n in analysis.model.nodes}
    for entry in plan.slices:
        own = inputs.get(entry.consumer, [])
        name = own[entry.input] if 0 <= entry.input < len(own) else ""
        if not name or analysis.model.root(name) != entry.source or entry.source not in analysis.model.sources:
            yield f"input {entry.input} of what makes {entry.consumer!r} is not {entry.source!r}"


def _elements(analysis: Analysis, plan: Plan) -> Iterator[str]:
    for entry in plan.slices:
        source = analysis.model.sources.get(entry.source)
        for axis, gone in entry.removed.items():
            size = source.shape[int(axis)] if source is not None and int(axis) < len(source.shape) else 0
            if not _ascends(gone, size) or len(gone) >= size:
                yield f"axis {axis} of {entry.source!r}"


def _ascends(indices: Sequence[int], size: int) -> bool:
    """Whether indices ascend within a size."""
    return all(0 <= n < size for n in indices) and all(a < b for a, b in pairwise(indices))


INVARIANTS: dict[str, Check] = {
    "groups are those of the analysis, each once": _known,
    "removed classes ascend, can be removed, and leave one": _free,
    "an order holds each class that stays once": _ordered,
    "a slice is of a constant that its consumer reads": _constants,
    "removed elements ascend within their axis, and leave one": _elements,
}
"""What holds of every plan."""
