"""Spans: the elements of several dims of one node, counted row-major, and what labels and removals say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphprune.analysis.web import Web
from graphprune.relation import IntArray


@dataclass(frozen=True)
class Span:
    """The elements of some dims, as one row.

    Attributes:
        sizes: of the dims.
        places: vertices of the web that hold some of them side by side, each with its first dim and the one behind the
            last; those of most dims first.
    """

    sizes: tuple[int, ...]
    places: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.sizes)

    def touches(self, vertices: Mapping[int, object] | set[int]) -> bool:
        """Whether some of the dims are among these vertices."""
        return any(vertex in vertices for vertex, _, _ in self.places)

    def labels(self, labels: Mapping[int, IntArray]) -> IntArray | None:
        """For each element the label that a group gives it, None where the group has none here.

        Args:
            labels: by vertex, as ``Group.labels``.
        """
        for vertex, first, last in self.places:
            if vertex in labels:
                shape = [n if first <= k < last else 1 for k, n in enumerate(self.sizes)]
                return np.broadcast_to(labels[vertex].reshape(shape), self.sizes).reshape(-1)
        return None

    def kept(self, kept: Callable[[int], IntArray]) -> IntArray:
        """Elements that stay, in their new order; ``kept`` says it of a vertex."""
        found, at = np.zeros(1, np.intp), 0
        while at < len(self.sizes):
            place = next((p for p in self.places if p[1] == at), None)
            stop = at + 1 if place is None else place[2]
            own = np.arange(self.sizes[at]) if place is None else kept(place[0])
            found = (found[:, None] * prod(self.sizes[at:stop]) + own).reshape(-1)
            at = stop
        return found


def span(net: Web, node: int, dims: Sequence[int], more: int = 1) -> Span:
    """The span of some dims of a node.

    Args:
        net: the web.
        node: index of the node.
        dims: its dims.
        more: elements of which each of theirs has this many, that the web knows nothing of (places in a window).
    """
    relation = net.relations[node]
    assert relation is not None
    wanted, found = tuple(dims), list[tuple[int, int, int]]()
    for slot, axes in relation.slots():
        for a, axis in enumerate(axes):
            vertex = net.axis(node, slot, a)
            for first in range(len(wanted) - len(axis.dims) + 1 if axis.lookup is None and len(axis.dims) > 1 else 0):
                if wanted[first : first + len(axis.dims)] == axis.dims and vertex is not None:
                    found.append((vertex, first, first + len(axis.dims)))
    found += [(net.dim_start[node] + d, k, k + 1) for k, d in enumerate(wanted)]
    sizes = [relation.dims[d].size for d in wanted]
    found.sort(key=lambda place: place[1] - place[2])  # stable: the first input comes first
    return Span((*sizes, *([more] if more > 1 else [])), tuple(found))
