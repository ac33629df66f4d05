"""Layers that repeat: sets of groups that keep one width, so that one number of a configuration says it.

Two groups repeat where they play the same part. What that is is read off the weights that they cut:

1. Each use of a weight in a product is an operator with its attributes, compared as they are, the place among its
   inputs, the shape of the weight, and the axis. Groups of one kind and size repeat that have the same uses, however
   often each: biases, masks and tables of positions stand in one layer and not in the next. A stream that is
   normalised (of kind ``hidden``) has all sorts of readers, and repeats another where one use is the same.
2. Queries and keys have head dims of their own, and values have theirs, but a head has one size in configurations and
   fused kernels. So head dims repeat that are cut out of weights with the same heads and have the same width there.
   Their classes may differ in width: of rotated queries pairs go, of values single elements.
3. Groups that go together (see ``ties``) are in one family with what any of them repeats.

The members of a family lose classes of their own, of which one number goes; where one of them must stay, all do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import networkx as nx

from graphprune.analysis import Analysis, Group
from graphprune.model import Use
from graphprune.passes.choose import ties
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ratio import Cause, Chosen, Untouched, lowest
from graphprune.passes.choose.ties import Together
from graphprune.passes.choose.widths import Unit


def units(analysis: Analysis, groups: Sequence[Group], share: float) -> list[Unit]:
    """A unit for each family, in the order of their first groups.

    Args:
        analysis: of the model.
        groups: the groups.
        share: of the classes that will go.
    """
    sets = ties.together(analysis, groups, share)
    return [Unit(tuple(sets[k] for k in own)) for own in _alike(analysis, [one.members for one in sets])]


def whole(
    analysis: Analysis, groups: Sequence[Group], untouched: Sequence[Untouched]
) -> tuple[list[Group], list[Untouched]]:
    """Leave out groups that repeat one that stays.

    Args:
        analysis: of the model.
        groups: the groups to choose from.
        untouched: why others stay.

    Returns:
        What is left of the groups, and why others are not.
    """
    every = [*analysis.groups, *analysis.fixed]
    may, why = {g.id for g in groups}, {one.group: str(one) for one in untouched}
    left: dict[str, Untouched] = {}
    for family in _alike(analysis, [(g,) for g in every]):
        stays = next((every[k] for k in family if every[k].id not in may), None)
        if stays is None:
            continue
        text = _repeats(stays.id, why.get(stays.id) or _kept(stays))
        left |= {every[k].id: Untouched(text, group=every[k].id, cause=Cause.REPEATS) for k in family}
    return [g for g in groups if g.id not in left], [left[g.id] for g in groups if g.id in left]


def level(units: Sequence[Unit], scores: Scores, chosen: Chosen) -> Chosen:
    """The same choice with one number for each family: the largest that every member can give.

    Args:
        units: the families.
        scores: importance by group id, shape ``[classes]``; the same for groups that go together.
        chosen: classes of each member, which may differ in number.
    """
    sets = [one for unit in units for one in unit.sets]
    why, stays = {one.group: one for one in chosen.untouched}, dict[str, Untouched]()
    found = chosen
    while True:
        numbers: dict[str, int] = {}
        for unit in units:
            number, least = _least(unit, found)
            numbers.update((one.id, number // unit.step(one)) for one in unit.sets)
            if not number and len(unit.sets) > 1 and unit.id not in stays:
                stays.update(_stay(unit, least, why))
        if all(len(found.selection.get(id, ())) == number for id, number in numbers.items()):
            break
        found = lowest(sets, scores, numbers)
    selection = {id: found.selection[id] for id in chosen.selection if id in found.selection}
    others = [one for one in chosen.untouched if one.group not in stays]
    return replace(chosen, selection=selection, untouched=[*others, *stays.values()])


def _least(unit: Unit, chosen: Chosen) -> tuple[int, Together]:
    """The largest number that all sets of a unit have at least, and the set that has the fewest."""
    each = [len(chosen.selection.get(one.id, ())) * unit.step(one) for one in unit.sets]
    least = min(each)
    return least - least % unit.stride, unit.sets[each.index(least)]


def _stay(unit: Unit, least: Together, why: Mapping[str, Untouched]) -> Iterator[tuple[str, Untouched]]:
    reason = why.get(least.id)
    text = "an axis would be left empty" if reason is None else str(reason)
    told = Untouched(_repeats(least.id, text), group=least.id, cause=Cause.REPEATS)
    for group in unit.members:
        yield group.id, why.get(group.id) or replace(told, group=group.id)


def _kept(group: Group) -> str:
    if group.reasons:
        return group.reasons[0].text
    return "it is chosen from elsewhere" if group.prunable else "one class of it must stay"


def _repeats(id: str, why: str) -> str:
    return f"it keeps the width of group {id!r}, of which none goes: {why}"


def _alike(analysis: Analysis, sets: Iterable[Sequence[Group]]) -> list[list[int]]:
    """Which sets of groups are a family, by place; in the order of their first."""
    graph: nx.Graph[Hashable] = nx.Graph()
    roles = _Roles(analysis)
    for k, members in enumerate(sets):
        graph.add_node(k)
        graph.add_edges_from((k, role) for group in members for role in roles.of(group))
    found = [sorted(one for one in own if isinstance(one, int)) for own in nx.connected_components(graph)]
    return sorted(own for own in found if own)


class _Roles:
    """What parts groups play."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        every = [*analysis.groups, *analysis.fixed]
        self.heads: dict[Use, list[str]] = {}
        for group in (g for g in every if g.kind == "head"):
            for use, _ in analysis.weights(group):
                self.heads.setdefault(use, []).append(group.id)
        self.finest: dict[int, int] = {}  # the halves of a rotated head are a group too, and no width of it
        for group in (g for g in every if g.kind == "head_dim"):
            for vertex in group.labels:
                self.finest[vertex] = max(self.finest.get(vertex, 0), group.size)

    def of(self, group: Group) -> Iterator[Hashable]:
        """Groups that share one of these are alike."""
        uses = self.analysis.weights(group)
        if not uses:
            return
        net = self.analysis.web
        products = [one for one in uses if (found := net.relations[one[0].node]) is not None and found.macs]
        own = sorted({self._use(use, axis) for use, axis in products or uses})
        yield from ((group.kind, group.size, one) for one in (own if group.kind == "hidden" else [tuple(own)]))
        width = self._width(group) if group.kind == "head_dim" else None
        if width is not None:
            yield from ((width, id) for use, _ in uses for id in self.heads.get(use, ()))

    def _use(self, use: Use, axis: int) -> tuple[str, str, tuple[bytes, ...], int, tuple[int, ...], int]:
        node = self.analysis.model.nodes[use.node]
        attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
        return node.domain, node.op_type, attributes, use.input, self.analysis.web.shapes[use], axis

    def _width(self, group: Group) -> int | None:
        """How many elements one head has: those of the least dim of a product that is all the group's; else None."""
        net = self.analysis.web
        found = []
        for vertex, labels in group.labels.items():
            relation = net.relations[net.dim(vertex)[0]] if vertex >= net.axes else None
            if relation is None or not relation.macs or self.finest[vertex] > group.size:
                continue
            if (labels >= 0).all() and len(labels) % group.size == 0:
                found.append(len(labels))
        return min(found, default=None)
