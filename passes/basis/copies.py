"""Copies of a group's classes: a space may change by a matrix of its own in each class of another group (each head)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.mixing import Mixing
from graphprune.analysis.web import Tensor
from graphprune.model import Use
from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray


@dataclass(frozen=True)
class Copies:
    """Which matrix of a space each strand changes by.

    Attributes:
        mixing: how a change passes.
        space: number of the space.
        count: how many matrices there are.
        over: by vertex the number of the matrix for each element, -1 where there is none; empty where one serves all.
    """

    analysis: Analysis
    mixing: Mixing
    space: int
    count: int
    over: dict[int, IntArray]

    def strands(self, vertex: int) -> list[tuple[IntArray, int, int]]:
        """The strands of the space on an axis: elements, the number of the matrix (-1: another axis says), the sign."""
        found = []
        for k, elements in enumerate(self.mixing.strands.get(vertex, ())):
            space, sign = self.mixing.spaces[(vertex, k)]
            if space == self.space:
                number = 0 if self.count == 1 else int(self.over[vertex][elements[0]]) if vertex in self.over else -1
                found.append((elements, number, sign))
        return found

    def axis(self, tensor: Tensor) -> int | None:
        """Number of the axis of a tensor that has strands of the space."""
        net = self.analysis.web
        start = net.axis_of[tensor]
        own = (a for a in range(len(net.shapes[tensor])) if self.strands(start + a))
        return next(own, None)

    def vectors(self, tensor: Tensor, value: Values) -> Iterable[tuple[Values, int, int]]:
        """The vectors of a tensor that change by the matrices of the space.

        Yields:
            Vectors ``[n, classes]``, the number of the matrix that they change by, and their sign.
        """
        axis = self.axis(tensor)
        if axis is None:
            return
        start = self.analysis.web.axis_of[tensor]
        last = np.moveaxis(value, axis, -1)
        for elements, number, sign in self.strands(start + axis):
            part = last[..., elements]
            if number >= 0:
                yield part.reshape(-1, part.shape[-1]), number, sign
                continue
            other = next((a for a in range(value.ndim) if a != axis and start + a in self.over), None)
            if other is None:
                continue
            apart = np.moveaxis(part, other - (other > axis), 0)
            for place, own in enumerate(self.over[start + other]):
                if own >= 0:
                    yield apart[place].reshape(-1, part.shape[-1]), int(own), sign

    def metric(self, tensor: Tensor, value: Values) -> dict[int, FloatArray]:
        """Second moments of the vectors of a tensor, by sign, shape ``[matrices, classes, classes]``."""
        size = self.mixing.group.size
        found: dict[int, FloatArray] = {}
        for vectors, number, sign in self.vectors(tensor, value):
            total = found.setdefault(sign, np.zeros((self.count, size, size)))
            rows = vectors.astype(np.float32, copy=False)
            total[number] += rows.T @ rows
        return found


def find_copies(analysis: Analysis, mixing: Mixing, space: int) -> Copies:
    """As many matrices as there can be: one for each class of another group, where all that changes says of which."""
    joint = Copies(analysis, mixing, space, 1, {})
    axes = [v for v, k in mixing.spaces if mixing.spaces[(v, k)][0] == space]
    uses = list(dict.fromkeys(v for v in axes if isinstance(analysis.web.tensor_of[v][0], Use)))
    for other in sorted([*analysis.groups, *analysis.fixed], key=lambda g: -g.size):
        if other is mixing.group or other.size < 2 or not all(_apart(mixing, v, other) for v in uses):
            continue
        if _stays_apart(analysis, mixing.group, other):
            return Copies(analysis, mixing, space, other.size, dict(other.labels))
    return joint


def _apart(mixing: Mixing, vertex: int, other: Group) -> bool:
    """Whether each strand on an axis is of one class of another group."""
    labels = other.labels.get(vertex)
    if labels is None:
        return False
    own = labels[mixing.strands[vertex]]
    return bool((own >= 0).all() and (own == own[:, :1]).all())


def _stays_apart(analysis: Analysis, group: Group, other: Group) -> bool:
    """Whether no node sums over the classes of the other group where those of the group stay."""
    net = analysis.web
    for vertex in group.labels:
        if vertex < net.axes:
            continue
        node, dim = net.dim(vertex)
        relation = net.relations[node]
        assert relation is not None
        kept = set().union(*(relation.reach(axes) for axes in relation.outputs if axes is not None), set())
        theirs = {d for d in range(len(relation.dims)) if net.dim_start[node] + d in other.labels}
        if dim in kept and not theirs <= kept:
            return False
    return True
