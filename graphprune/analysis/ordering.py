"""Reordering: the classes of a group change places, and every axis that they touch follows.

At the places of one class come the elements of another, the j-th at the place of the j-th. That changes nothing in what
a model computes where each node sees the same permutation on all its axes: it commutes with every index map. Whether it
does is looked at, map by map; operators that pick elements by their place (a slice, a split) hold classes apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis.web import Edge, Web
from graphprune.relation import IntArray

Orders = Mapping[str, Sequence[int]]
"""By group id the classes that stay, in their new order."""


def moved(labels: IntArray, source: IntArray) -> IntArray:
    """Which element comes to each place of an axis.

    Args:
        labels: the class of each element, -1 for none.
        source: for each class the class whose elements come to its places, shape ``[classes]``; both have equally many.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(len(source)))
    held = np.flatnonzero(labels >= 0)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels))
    found = np.arange(len(labels))
    own = labels[held]
    found[held] = order[starts[source[own]] + rank[held] - starts[own]]
    return found


def kinds(net: Web, labels: Mapping[int, IntArray], size: int, fixed: np.ndarray) -> IntArray | None:
    """Which classes of a group can take each other's places: those of one kind.

    Args:
        net: the web.
        labels: of the group.
        size: number of classes.
        fixed: classes that must stay where they are, shape ``[size]``.

    Returns:
        A number for each class, ``[size]``; None where nodes tell places apart, so that none can.
    """
    distinct = {id(a): a for a in labels.values()}
    counts = np.stack([np.bincount(a[a >= 0], minlength=size) for a in distinct.values()])
    _, found = np.unique(counts, axis=1, return_inverse=True)
    found = np.where(fixed, found.max(initial=0) + 1 + np.arange(size), found.reshape(-1))
    # one permutation without a fixed point stands for all of a kind: each takes the place of the next
    own = np.argsort(found, kind="stable")
    source, before = np.arange(size), np.roll(own, 1)
    firsts = np.flatnonzero(np.diff(found[own], prepend=-1))
    before[firsts] = own[np.append(firsts[1:], size) - 1]
    source[own] = before
    by_vertex = {v: moved(a, source) for v, a in labels.items()}
    edges = {id(e): e for v in labels for e in net.edges[v]}
    return found if all(commutes(net, e, by_vertex) for e in edges.values()) else None


def commutes(net: Web, edge: Edge, by_vertex: Mapping[int, IntArray]) -> bool:
    """Whether an axis and the dims behind it are permuted alike.

    Args:
        net: the web.
        edge: the axis as one node sees it.
        by_vertex: which element comes to each place; vertices that stay as they are may be left out.
    """
    if not any(v in by_vertex for v in (edge.axis, *edge.dims)):
        return True
    sizes = [net.sizes[d] for d in edge.dims]
    axis = by_vertex.get(edge.axis, np.arange(net.sizes[edge.axis]))
    dims = [by_vertex.get(d, np.arange(n)) for d, n in zip(edge.dims, sizes, strict=True)]
    if edge.map.lookup is not None:
        lookup = edge.map.lookup
        wanted = np.where(lookup >= 0, dims[0][lookup], -1)
        return bool((lookup[axis] == wanted).all())
    places = np.unravel_index(np.arange(len(axis)), sizes)
    flat = np.ravel_multi_index(tuple(d[p] for d, p in zip(dims, places, strict=True)), sizes)
    return bool((axis == flat).all())


def sources(order: Sequence[int], size: int) -> IntArray:
    """For each class the class that comes to its places, from the classes that stay in their new order."""
    found = np.arange(size)
    found[np.sort(np.asarray(order, np.int64))] = order
    return found
