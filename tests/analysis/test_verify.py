"""For each invariant of an analysis, and of a plan, something that breaks it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphprune
from graphprune import Analysis
from graphprune.analysis import verify
from graphprune.errors import FaultError
from graphprune.model import Use
from graphprune.rewrite import verify as of_plan
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import rewrite
from models.small import Net, attention, chain, residual


def _axis(analysis: Analysis) -> int:
    """An activation's axis that the first group tells apart."""
    group = analysis.groups[0]
    net = analysis.web
    return next(v for v in group.labels if v < net.axes and isinstance(net.tensor_of[v][0], str))


def _relabel(analysis: Analysis, vertex: int, labels: Any) -> None:
    analysis.groups[0].labels[vertex] = np.asarray(labels)


def _shapes(analysis: Analysis) -> None:
    tensor = next(iter(analysis.web.axis_of))
    analysis.web.shapes[tensor] = tuple(n + 1 for n in analysis.web.shapes[tensor])


def _witness(analysis: Analysis) -> None:
    tensor = next(t for t in analysis.web.axis_of if isinstance(t, str))
    analysis.witness.first.shapes[tensor] = (1, *analysis.witness.first.shapes[tensor])


def _maps(analysis: Analysis) -> None:
    net = analysis.web
    vertex = _axis(analysis)
    edge = next(e for e in net.edges[vertex] if e.axis == vertex)
    lookup = np.full(net.sizes[vertex], net.sizes[edge.dims[0]])
    net.edges[vertex] = [replace(edge, map=replace(edge.map, dims=edge.map.dims[:1], lookup=lookup))]


def _ids(analysis: Analysis) -> None:
    analysis.fixed[0].id = analysis.groups[0].id


def _sorted(analysis: Analysis) -> None:
    analysis.groups.append(analysis.fixed.pop())


def _fixed(analysis: Analysis) -> None:
    analysis.fixed.append(analysis.groups.pop())


def _lengths(analysis: Analysis) -> None:
    vertex = _axis(analysis)
    _relabel(analysis, vertex, analysis.groups[0].labels[vertex][:-1])


def _unknown_class(analysis: Analysis) -> None:
    vertex = _axis(analysis)
    _relabel(analysis, vertex, analysis.groups[0].labels[vertex] + 1)


def _lost_class(analysis: Analysis) -> None:
    group = analysis.groups[0]
    group.labels = {v: np.where(a == group.size - 1, 0, a) for v, a in group.labels.items()}


def _axis_loses_an_element(analysis: Analysis) -> None:
    vertex = _axis(analysis)
    labels = analysis.groups[0].labels[vertex].copy()
    labels[0] = -1
    _relabel(analysis, vertex, labels)


def _dim_loses_an_element(analysis: Analysis) -> None:
    vertex = next(v for v in analysis.groups[0].labels if v >= analysis.web.axes)
    labels = analysis.groups[0].labels[vertex].copy()
    labels[-1] = -1
    _relabel(analysis, vertex, labels)


def _dim_is_forgotten(analysis: Analysis) -> None:
    del analysis.groups[0].labels[next(v for v in analysis.groups[0].labels if v >= analysis.web.axes)]


def _axis_is_forgotten(analysis: Analysis) -> None:
    del analysis.groups[0].labels[_axis(analysis)]


def _classes_change_places(analysis: Analysis) -> None:
    _relabel(analysis, _axis(analysis), analysis.groups[0].labels[_axis(analysis)][::-1])


def _disjoint(analysis: Analysis) -> None:
    analysis.groups.append(replace(analysis.groups[0], id="twin"))


def _pinned_for_nothing(analysis: Analysis) -> None:
    analysis.groups[0].pinned = np.arange(analysis.groups[0].size) == 0


def _reason_for_nothing(analysis: Analysis) -> None:
    analysis.groups[0].reasons = analysis.fixed[0].reasons


def _reasons(analysis: Analysis) -> None:
    fixed = next(g for g in analysis.fixed if g.reasons)
    fixed.reasons = [replace(fixed.reasons[0], vertex=next(v for v in analysis.groups[0].labels))]


def _interface(analysis: Analysis) -> None:
    analysis.groups[0].interface = ("x",)


def _owners(analysis: Analysis) -> None:
    group, net = analysis.groups[0], analysis.web
    own = [v for v in group.labels if v < net.axes and isinstance(net.tensor_of[v][0], Use)]
    for vertex in own:
        del group.labels[vertex]


def _negative(analysis: Analysis) -> None:
    analysis.groups[0].macs = -analysis.groups[0].macs


def _too_few_costs(analysis: Analysis) -> None:
    analysis.groups[0].parameters = analysis.groups[0].parameters[1:]


def _parameters(analysis: Analysis) -> None:
    analysis.groups[0].parameters = analysis.groups[0].parameters * 2


def _macs(analysis: Analysis) -> None:
    analysis.groups[0].macs = analysis.groups[0].macs + 1


BREAKS: dict[Callable[[Analysis], None], str] = {
    _shapes: "sizes of axes agree",
    _witness: "sizes of axes agree",
    _maps: "index maps fit",
    _ids: "ids of groups are unique",
    _sorted: "what is prunable and what is fixed",
    _fixed: "what is prunable and what is fixed",
    _lengths: "a group has a label for each element",
    _unknown_class: "class ids lie between",
    _lost_class: "class ids lie between",
    _axis_loses_an_element: "what can be removed is closed",
    _dim_loses_an_element: "what can be removed is closed",
    _dim_is_forgotten: "what can be removed is closed",
    _axis_is_forgotten: "what can be removed is closed",
    _classes_change_places: "what can be removed is closed",
    _disjoint: "no two groups tell the same",
    _pinned_for_nothing: "what is pinned has a reason",
    _reason_for_nothing: "what is pinned has a reason",
    _reasons: "reasons stand where",
    _interface: "a group names the inputs and outputs",
    _owners: "every group owns",
    _negative: "costs are numbers",
    _too_few_costs: "costs are numbers",
    _parameters: "costs of the classes add up",
    _macs: "costs of the classes add up",
}
"""What breaks an invariant, and how its sentence begins."""


@pytest.mark.parametrize("slip", BREAKS, ids=lambda slip: slip.__name__)
def test_what_breaks_an_invariant_is_named(slip: Callable[[Analysis], None]) -> None:
    analysis = graphprune.analyze(residual())
    verify.verify(analysis)
    slip(analysis)
    with pytest.raises(FaultError, match=f"the analysis is not well-formed: {BREAKS[slip]}"):
        verify.verify(analysis)


def test_every_invariant_is_broken_by_something() -> None:
    assert {s for s in verify.INVARIANTS if not any(s.startswith(b) for b in BREAKS.values())} == set()
    assert {s for s in of_plan.INVARIANTS if not any(s.startswith(b) for b in PLANS.values())} == set()


def test_an_analysis_is_looked_at_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verify.INVARIANTS, "there is no analysis", lambda analysis: iter(["here"]))
    with pytest.raises(FaultError, match="not well-formed: there is no analysis: here"):
        graphprune.analyze(chain())
    monkeypatch.setattr(verify, "always", False)
    graphprune.analyze(chain())


def test_two_groups_may_tell_a_diagonal_apart() -> None:
    """Channels are two by two, and 1 and 2 of them are sliced: both factors tell these apart, and neither all four."""
    net = Net()
    x = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 4)
    pairs = net.op("Reshape", x, net.ints(0, 2, 2, 16))
    net.op("Reshape", net.op("Mul", pairs, net.weight(2, 1)), net.ints(0, 4, 4, 4))
    x = net.conv(x, 4, 4, group=4)
    some = net.conv(net.op("Slice", x, net.ints(1), net.ints(3), net.ints(1)), 2, 2)
    analysis = graphprune.analyze(net.model(net.conv(x, 4, 2), some))
    verify.verify(analysis)
    assert [group.size for group in analysis.groups] == [2, 2]


def test_groups_that_share_an_axis_are_well_formed() -> None:
    analysis = graphprune.analyze(attention())
    heads, dims = (next(g for g in analysis.groups if g.kind == kind) for kind in ("head", "head_dim"))
    assert set(heads.labels) & set(dims.labels), "they meet on the axis of the projection"
    verify.verify(analysis)


def _unknown_group(plan: Plan) -> None:
    plan.groups[0].id = "nowhere"


def _other_size(plan: Plan) -> None:
    plan.groups[0].size += 1


def _twice(plan: Plan) -> None:
    plan.groups.append(plan.groups[0])


def _beyond(plan: Plan) -> None:
    plan.groups[0].removed = [plan.groups[0].size]


def _everything(plan: Plan) -> None:
    plan.groups[0].removed = list(range(plan.groups[0].size))


def _descends(plan: Plan) -> None:
    plan.groups[0].removed = [1, 0]


def _order(plan: Plan) -> None:
    plan.groups[0].order = [0] * (plan.groups[0].size - 2)


def _other_source(plan: Plan) -> None:
    plan.slices[0].source = "nowhere"


def _other_consumer(plan: Plan) -> None:
    plan.slices[0].input = 9


def _beyond_the_axis(plan: Plan) -> None:
    plan.slices[0].removed = {axis: [99] for axis in plan.slices[0].removed}


def _no_such_axis(plan: Plan) -> None:
    plan.slices[0].removed = {"7": [0]}


PLANS: dict[Callable[[Plan], None], str] = {
    _unknown_group: "groups are those",
    _other_size: "groups are those",
    _twice: "groups are those",
    _beyond: "removed classes ascend",
    _everything: "removed classes ascend",
    _descends: "removed classes ascend",
    _order: "an order holds",
    _other_source: "a slice is of a constant",
    _other_consumer: "a slice is of a constant",
    _beyond_the_axis: "removed elements ascend",
    _no_such_axis: "removed elements ascend",
}
"""What puts a plan out of bounds, and how the sentence begins that it breaks."""


@pytest.mark.parametrize("slip", PLANS, ids=lambda slip: slip.__name__)
def test_a_plan_out_of_bounds_is_named(slip: Callable[[Plan], None]) -> None:
    analysis = graphprune.analyze(residual())
    plan = rewrite(analysis, {analysis.groups[0].id: [0, 2]}).plan
    of_plan.verify(analysis, plan)
    slip(plan)
    with pytest.raises(FaultError, match=f"the plan is out of bounds: {PLANS[slip]}"):
        of_plan.verify(analysis, plan)


def test_a_pinned_class_is_in_no_plan() -> None:
    analysis = graphprune.analyze(residual())
    plan = rewrite(analysis, {analysis.groups[0].id: [0]}).plan
    analysis.groups[0].pinned = np.arange(analysis.groups[0].size) == 0
    with pytest.raises(FaultError, match="removed classes ascend, can be removed"):
        of_plan.verify(analysis, plan)
