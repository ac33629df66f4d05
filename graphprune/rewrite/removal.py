"""What a selection of classes removes from every axis, and how the rest is ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.ordering import Orders, commutes, moved, sources
from graphprune.analysis.web import Edge, Tensor
from graphprune.errors import InputError
from graphprune.model import Use, node_name
from graphprune.relation import IntArray, push

Selection = Mapping[str, Sequence[int]]
"""Removed classes by group id."""


class Removal:
    """Removed elements of every axis and dim that a selection touches.

    Attributes:
        gone: for each touched vertex, whether each element is removed.
        moved: for each vertex with elements that change places, which one comes to each place.
    """

    def __init__(self, analysis: Analysis, selection: Selection, orders: Orders | None = None) -> None:
        """Raises InputError where a group is unknown, a class is pinned, or an axis would be left empty."""
        self.analysis = analysis
        self.gone: dict[int, np.ndarray] = {}
        self.moved: dict[int, IntArray] = {}
        for id, classes in selection.items():
            self._remove(id, classes)
            self._left(id)
        for id, order in (orders or {}).items():
            self._reorder(id, order, selection.get(id, ()))
        verify(analysis, self)
        self._sizes = self._measured()

    def _measured(self) -> list[int]:
        """How many elements stay of each vertex."""
        known: dict[int, int] = {}
        sizes = list(self.analysis.web.sizes)
        for vertex, gone in self.gone.items():
            if id(gone) not in known:
                known[id(gone)] = int(np.count_nonzero(~gone))
            sizes[vertex] = known[id(gone)]
        return sizes

    def _remove(self, id: str, classes: Sequence[int]) -> None:
        name, group = self.analysis.model.name, self._group(id)
        chosen = np.zeros(group.size + 1, bool)  # the last entry stands for no class
        if len(classes) and not 0 <= min(classes) <= max(classes) < group.size:
            wrong = max(classes) if min(classes) >= 0 else min(classes)
            raise InputError(f"{name}: group {id!r} has classes 0 to {group.size - 1}, not {wrong}")
        chosen[list(classes)] = True
        if (chosen[:-1] & group.pinned).any():
            which = int(np.flatnonzero(chosen[:-1] & group.pinned)[0])
            raise InputError(f"{name}: class {which} of group {id!r} cannot be removed: {group.reasons[0].text}")
        self._mark(group, chosen)

    def _mark(self, group: Group, chosen: np.ndarray) -> None:
        """Elements of the chosen classes go; most vertices of a group share one array of labels."""
        known: dict[int, np.ndarray | None] = {}
        for vertex, labels in group.labels.items():
            key = id(labels)
            if key not in known:
                made = chosen[labels]
                known[key] = made if made.any() else None
            gone = known[key]
            if gone is not None:
                self.gone[vertex] = self.gone[vertex] | gone if vertex in self.gone else gone

    def _left(self, id: str) -> None:
        """As many as are chosen at once must be left.

        Raises:
            InputError: there are fewer.
        """
        for one in self._group(id).choices:
            whole, gone = self.analysis.web.sizes[one.vertex], self.gone.get(one.vertex)
            left = whole if gone is None else whole - int(np.count_nonzero(gone))
            if left < one.choice.count:
                raise InputError(
                    f"{self.analysis.model.name}: {left} of {whole} would be left for node {one.node!r}, which picks "
                    f"{one.choice.count} at once; remove fewer of group {id!r}"
                )

    def _group(self, id: str) -> Group:
        group = self.analysis.group(id)
        if group is None:
            raise InputError(f"{self.analysis.model.name}: there is no group {id!r}; 'graphprune inspect' lists them")
        return group

    def _reorder(self, id: str, order: Sequence[int], removed: Sequence[int]) -> None:
        name, group = self.analysis.model.name, self._group(id)
        if sorted(order) != sorted(set(range(group.size)) - set(removed)):
            raise InputError(f"{name}: the order of group {id!r} is not one of the {group.size} classes that stay")
        source = sources(order, group.size)
        if (group.pinned & (source != np.arange(group.size))).any():
            raise InputError(f"{name}: the order of group {id!r} moves a class that cannot be removed")
        for vertex, labels in group.labels.items():
            held = labels[labels >= 0]
            counts = np.bincount(held, minlength=group.size)
            if (counts != counts[source]).any():
                where = self.analysis.web.label(vertex, self.analysis.model)
                raise InputError(f"{name}: classes of group {id!r} cannot change places: {where} holds not all of them")
            step = moved(labels, source)
            if (step != np.arange(len(step))).any():
                self.moved[vertex] = self.moved[vertex][step] if vertex in self.moved else step

    def kept(self, vertex: int) -> IntArray:
        """Elements of a vertex that stay, in their new order."""
        gone, places = self.gone.get(vertex), self.moved.get(vertex)
        found = np.arange(self.analysis.web.sizes[vertex]) if gone is None else np.flatnonzero(~gone)
        return found if places is None else places[found]

    def touches(self, vertex: int) -> bool:
        """Whether a vertex loses elements, or some change places."""
        return vertex in self.gone or vertex in self.moved

    def size(self, vertex: int) -> int:
        """Number of elements of a vertex that stay."""
        return self._sizes[vertex]

    def sizes(self) -> list[int]:
        """Sizes of all vertices after removal."""
        return list(self._sizes)

    def of(self, tensor: Tensor) -> dict[int, IntArray]:
        """For each axis of a tensor that loses elements, the removed ones."""
        net = self.analysis.web
        start = net.axis_of.get(tensor)
        if start is None:
            return {}
        axes = range(len(net.shapes[tensor]))
        return {a: np.flatnonzero(self.gone[start + a]) for a in axes if start + a in self.gone}

    def reordered(self, tensor: str | Use) -> dict[int, IntArray]:
        """For each axis of a tensor whose elements change places, those that stay in their new order."""
        net = self.analysis.web
        start = net.axis_of.get(tensor)
        if start is None:
            return {}
        axes = range(len(net.shapes[tensor]))
        return {a: self.kept(start + a) for a in axes if start + a in self.moved}

    def shape(self, tensor: Tensor) -> tuple[int, ...] | None:
        """Shape of an activation, or of a constant as one node reads it, after removal, at the witness."""
        net = self.analysis.web
        start = net.axis_of.get(tensor)
        if start is None:
            return self.analysis.witness.shape(tensor) if isinstance(tensor, str) else None
        return tuple(self.size(start + a) for a in range(len(net.shapes[tensor])))


def verify(analysis: Analysis, removal: Removal) -> None:
    """The invariant of every removal: what an axis loses is what the dims behind it lose, and something is left.

    And of every new order: an axis is permuted as the dims behind it are.

    Raises:
        InputError: an axis would be left empty, or a node tells places apart that change.
        AssertionError: the labelling of a group is not closed: an error of this program.
    """
    net, gone = analysis.web, removal.gone
    seen: set[int] = set()
    empty = {key for key, marks in {id(marks): marks for marks in gone.values()}.items() if marks.all()}
    for vertex in sorted(gone):
        if vertex < net.axes and id(gone[vertex]) in empty:
            raise InputError(
                f"{analysis.model.name}: this selection would leave nothing of {net.label(vertex, analysis.model)}; "
                "keep at least one class of each group on it"
            )
        for edge in net.edges[vertex]:
            if edge.map.lookup is None and len(edge.dims) == 1 and gone.get(edge.dims[0]) is gone.get(edge.axis):
                continue
            if id(edge) not in seen:
                seen.add(id(edge))
                _verify_edge(analysis, removal, edge)
    for edge in {id(e): e for v in removal.moved for e in net.edges[v]}.values():
        if not commutes(net, edge, removal.moved):
            raise InputError(
                f"{analysis.model.name}: elements of {net.label(edge.axis, analysis.model)} cannot change places: node "
                f"{node_name(analysis.model, edge.node)!r} picks them by place"
            )


def _verify_edge(analysis: Analysis, removal: Removal, edge: Edge) -> None:
    net = analysis.web
    dims = edge.dims
    sizes = [net.sizes[d] for d in dims]
    expected = np.zeros(net.sizes[edge.axis], bool)
    for which, d in enumerate(dims):
        if d in removal.gone:
            marks = push(edge.map, removal.gone[d].astype(np.int64), which, sizes)
            expected |= marks == 1
    found = removal.gone.get(edge.axis, np.zeros_like(expected))
    assert (expected == found).all(), (
        f"{net.label(edge.axis, analysis.model)} and node {node_name(analysis.model, edge.node)!r} disagree on what "
        "is removed"
    )
