"""What a well-formed analysis is, stated once: each invariant is a sentence, and a function that finds what breaks it.

Rewriting, scoring and proving rely on these sentences and do not look again. A rule of a third party can break them
(an index map that is longer than its axis), and so can a slip in the propagation; either is told as the fault that it
is, with the sentence and the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isclose, prod
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.web import Edge, Web
from graphprune.errors import FaultError
from graphprune.model import Use, node_name
from graphprune.relation import IntArray, push

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis, Group

Check = Callable[["Analysis"], Iterator[str]]
"""Says in words where an analysis breaks an invariant; nothing where it keeps it."""
INVARIANTS: dict[str, Check] = {}
"""What holds of every analysis, in the order in which it is looked at: later checks rely on earlier ones."""
always = False
"""Whether every analysis is looked at as it is made; tests say so."""


def verify(analysis: Analysis) -> None:
    """Look at every invariant of an analysis.

    Raises:
        FaultError: one does not hold; says which, and where.
    """
    for statement, check in INVARIANTS.items():
        where = next(check(analysis), None)
        if where is not None:
            raise FaultError(f"{analysis.model.name}: the analysis is not well-formed: {statement}: {where}")


def _states(statement: str) -> Callable[[Check], Check]:
    """Enter a check under what it states."""

    def enter(check: Check) -> Check:
        INVARIANTS[statement] = check
        return check

    return enter


def _each(analysis: Analysis) -> Iterator[Group]:
    yield from analysis.groups
    yield from analysis.fixed


@_states("sizes of axes agree with the shapes of their tensors")
def _shapes(analysis: Analysis) -> Iterator[str]:
    net, known = analysis.web, analysis.witness.first.shapes
    for tensor, start in net.axis_of.items():
        shape = net.shapes[tensor]
        if tuple(net.sizes[start : start + len(shape)]) != tuple(shape):
            yield f"{tensor} has sizes {net.sizes[start : start + len(shape)]} and shape {list(shape)}"
        if isinstance(tensor, str) and tensor in known and tuple(known[tensor]) != tuple(shape):
            yield f"{tensor} has shape {list(shape)}, and {list(known[tensor])} at the witness"


@_states("index maps fit their axes and dims")
def _maps(analysis: Analysis) -> Iterator[str]:
    net = analysis.web
    for vertex, edges in enumerate(net.edges):
        for edge in edges:
            if edge.axis != vertex:
                continue
            sizes, lookup = [net.sizes[d] for d in edge.dims], edge.map.lookup
            fits = prod(sizes) == net.sizes[vertex] if lookup is None else len(lookup) == net.sizes[vertex]
            if not fits or (lookup is not None and lookup.size and not -1 <= lookup.min() <= lookup.max() < sizes[0]):
                yield _at(analysis, vertex, edge)


@_states("ids of groups are unique")
def _ids(analysis: Analysis) -> Iterator[str]:
    taken: set[str] = set()
    for group in _each(analysis):
        if group.id in taken:
            yield f"{group.id!r} twice"
        taken.add(group.id)


@_states("what is prunable and what is fixed stand apart")
def _sorted(analysis: Analysis) -> Iterator[str]:
    yield from (f"group {g.id!r} has nothing to remove" for g in analysis.groups if not g.prunable)
    yield from (f"group {g.id!r} is prunable and counts as fixed" for g in analysis.fixed if g.prunable)


@_states("a group has a label for each element of the vertices that it touches")
def _lengths(analysis: Analysis) -> Iterator[str]:
    net = analysis.web
    for group in _each(analysis):
        for vertex, labels in group.labels.items():
            if not 0 <= vertex < len(net.sizes) or labels.shape != (net.sizes[vertex],):
                yield f"group {group.id!r} at vertex {vertex}"


@_states("class ids lie between -1 and the number of classes, and every class occurs")
def _classes(analysis: Analysis) -> Iterator[str]:
    for group in _each(analysis):
        present = np.zeros(group.size, bool)
        for labels in _distinct(group):
            if labels.size and not -1 <= labels.min() <= labels.max() < group.size:
                yield f"group {group.id!r} has {group.size} classes and label {labels.min()} or {labels.max()}"
                break
            present[labels[labels >= 0]] = True
        else:
            if not present.all():
                yield f"class {int(np.flatnonzero(~present)[0])} of group {group.id!r} occurs nowhere"


@_states("every group owns elements of a constant")
def _owners(analysis: Analysis) -> Iterator[str]:
    yield from (f"group {g.id!r} owns none" for g in _each(analysis) if not analysis.web.uses(g.labels))


@_states("what can be removed is closed under every index map")
def _closed(analysis: Analysis) -> Iterator[str]:
    """An element of an axis has the class of the elements of dims behind it, and no other; pinned ones never go."""
    net = analysis.web
    for group in _each(analysis):
        if group.pinned.all():
            continue
        free = np.append(~group.pinned, False)  # the last entry stands for no class
        edges = {id(e): e for v in group.labels for e in net.edges[v]}
        seen: set[tuple[int, ...]] = set()  # layers that repeat share arrays and maps
        for edge in edges.values():
            key = (id(edge.map), *(id(group.labels.get(v)) for v in (edge.axis, *edge.dims)))
            if key not in seen and not _agrees(net, group, edge, free):
                yield f"group {group.id!r}: {_at(analysis, edge.axis, edge)}"
            seen.add(key)


def _agrees(net: Web, group: Group, edge: Edge, free: np.ndarray) -> bool:
    sizes = [net.sizes[d] for d in edge.dims]
    none = np.full(net.sizes[edge.axis], -1)
    own = group.labels.get(edge.axis, none)
    behind = [push(edge.map, group.labels[d], k, sizes) for k, d in enumerate(edge.dims) if d in group.labels]
    reached = np.max([none, *behind], axis=0)
    for labels in behind:
        differ = (labels >= 0) & (labels != reached)
        if (free[labels[differ]] | free[reached[differ]]).any():
            return False
    differ = own != reached
    return not (free[own[differ]] | free[reached[differ]]).any()


@_states("no two groups tell the same elements apart")
def _disjoint(analysis: Analysis) -> Iterator[str]:
    """They may meet on an axis (heads and head dims do), but classes of single elements are of one group alone.

    A diagonal of a composite axis (the elements 1 and 2 of two by two) is no counterexample: two groups each tell its
    elements apart, and cross elsewhere.
    """
    home: dict[int, Group] = {}
    for group in analysis.groups:
        alone = {id(a) for a in _distinct(group) if len(a) == group.size and len(np.unique(a[a >= 0])) == group.size}
        for vertex, labels in group.labels.items():
            if id(labels) in alone and home.setdefault(vertex, group) is not group and not _cross(home[vertex], group):
                other = home[vertex].id
                yield f"{analysis.web.label(vertex, analysis.model)} is of groups {other!r} and {group.id!r}"


def _cross(one: Group, other: Group) -> bool:
    """Whether some axis has elements that the one group tells apart and the other does not, and the other way round."""
    for vertex in one.labels.keys() & other.labels.keys():
        a, b = one.labels[vertex], other.labels[vertex]
        held = (a >= 0) & (b >= 0)
        pairs = len(np.unique(a[held] * other.size + b[held]))
        if pairs > len(np.unique(a[held])) and pairs > len(np.unique(b[held])):
            return True
    return False


@_states("what is pinned has a reason, and a reason pins")
def _pins(analysis: Analysis) -> Iterator[str]:
    for group in _each(analysis):
        if group.pinned.shape != (group.size,) or bool(group.pinned.any()) != bool(group.reasons):
            yield f"group {group.id!r} has {int(group.pinned.sum())} pinned classes and {len(group.reasons)} reasons"


@_states("reasons stand where their group is")
def _reasons(analysis: Analysis) -> Iterator[str]:
    nodes = set(analysis.web.names)
    for group in _each(analysis):
        for reason in (*group.reasons, *group.statistics):
            if reason.vertex not in group.labels or (reason.node and reason.node not in nodes) or not reason.text:
                yield f"group {group.id!r}: {reason.text!r} at vertex {reason.vertex}"


@_states("a group names the inputs and outputs of the graph that it reaches")
def _interface(analysis: Analysis) -> Iterator[str]:
    for group in _each(analysis):
        reached = {analysis.web.interface[v] for v in group.labels if v in analysis.web.interface}
        if reached != set(group.interface):
            yield f"group {group.id!r} names {sorted(group.interface)} and reaches {sorted(reached)}"


@_states("costs are numbers of at least 0, one for each class")
def _costs(analysis: Analysis) -> Iterator[str]:
    for group in _each(analysis):
        for name, cost in (("parameters", group.parameters), ("macs", group.macs)):
            if cost.shape != (group.size,) or not np.isfinite(cost).all() or (cost < 0).any():
                yield f"{name} of group {group.id!r}"


@_states("costs of the classes add up to those of what the group owns")
def _sums(analysis: Analysis) -> Iterator[str]:
    for group in _each(analysis):
        owned, summed = _owned(analysis, group), _summed(analysis.web, group)
        if not isclose(float(group.parameters.sum()), owned, rel_tol=1e-9, abs_tol=1e-6):
            yield f"classes of group {group.id!r} have {group.parameters.sum():g} parameters, and it owns {owned:g}"
        if not isclose(float(group.macs.sum()), summed, rel_tol=1e-9, abs_tol=1e-6):
            yield f"classes of group {group.id!r} have {group.macs.sum():g} MACs, and its dims have {summed:g}"


def _owned(analysis: Analysis, group: Group) -> float:
    """Elements of constants with a class; a constant counts once an axis, however many nodes read it."""
    net = analysis.web
    found: dict[tuple[str, int], float] = {}
    for use, axis in analysis.web.uses(group.labels):
        labels = group.labels[net.axis_of[use] + axis]
        share = np.count_nonzero(labels >= 0) / len(labels)
        found.setdefault((analysis.root(use), axis), share * prod(net.shapes[use]))
    return sum(found.values())


def _summed(net: Web, group: Group) -> float:
    """Multiply-accumulates over elements of dims with a class."""
    total = 0.0
    for node in dict.fromkeys(net.dim(v)[0] for v in group.labels if v >= net.axes):
        relation, start = net.relations[node], net.dim_start[node]
        for product in relation.macs if relation is not None else ():
            whole = prod(net.sizes[start + d] for d in product)
            held = (group.labels[start + d] for d in product if start + d in group.labels)
            total += sum(whole * np.count_nonzero(labels >= 0) / len(labels) for labels in held)
    return total


def _distinct(group: Group) -> list[IntArray]:
    """Arrays of labels; most vertices share one."""
    return list({id(a): a for a in group.labels.values()}.values())


def _at(analysis: Analysis, vertex: int, edge: Edge) -> str:
    net, model = analysis.web, analysis.model
    tensor = net.tensor_of[vertex][0] if vertex < net.axes else ""
    seen = "" if isinstance(tensor, Use) else f" as node {node_name(model, edge.node)!r} sees it"
    return net.label(vertex, model) + seen
