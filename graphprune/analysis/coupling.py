"""Coupling by label propagation.

The elements of one axis get labels and are pushed through every index map that they touch; where two labels meet on
one element they become one class. What results is a group of classes, each of which must live or die as a whole.

A composite axis passes labels on to the factor along which they alone vary. Where there is none, the labelling forks:
for each factor it goes on with labels merged just enough to vary along that one. Heads and head dims are both found so,
and what channel shuffles leave of a group. No operator is named here.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from graphprune.analysis.classes import Classes
from graphprune.analysis.reasons import Reason
from graphprune.analysis.web import Edge, Web
from graphprune.model import Use
from graphprune.relation import Choice, IntArray, constant_along_others, push


@dataclass(frozen=True)
class Traced(Reason):
    """Why classes cannot be removed; ``node`` is the one whose rule says so, empty for the graph's interface.

    Attributes:
        vertex: where in the web: :meth:`Web.label` has it in words, ``Analysis.chain`` what leads there.
    """

    vertex: int = field(kw_only=True)


@dataclass(frozen=True)
class Statistic(Traced):
    """A statistic that masking does not reproduce; its vertex is the dim that it runs over.

    Attributes:
        inputs: inputs of the node in which removed elements would have to be zero, or their mean.
        centred: whether it is the mean of what stays that would leave the statistic alone, and not zero.
    """

    inputs: tuple[int, ...] = ()
    centred: bool = False


@dataclass(frozen=True)
class Chosen(Traced):
    """A choice along a dim, in which removed elements have no part; its vertex is the dim.

    Attributes:
        choice: what is chosen.
    """

    choice: Choice = field(kw_only=True)


@dataclass
class Coupled:
    """A closed labelling.

    Attributes:
        seed: the vertex that it was started from.
        labels: for each vertex touched, the class of each element, -1 for elements in no class.
        size: number of classes.
        pinned: for each class, whether it cannot be removed.
        reasons: why, each pin once.
        statistics: statistics that run over it and are not kept exact.
        choices: choices along it: what is removed is never chosen in the masked model.
        interface: inputs and outputs of the graph that it reaches, where these may change.
    """

    seed: int
    labels: dict[int, IntArray]
    size: int
    pinned: np.ndarray
    reasons: list[Traced] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    choices: list[Chosen] = field(default_factory=list)
    interface: list[str] = field(default_factory=list)


class _Duplicate(Exception):
    """The labelling has reached the home of an earlier one, and so would become the same."""


class _Attempt:
    """One propagation. It ends closed, or stuck at composite axes along which its labels vary in more than one way."""

    def __init__(self, web: Web, seed: int, start: IntArray, homes: set[int]) -> None:
        self.web, self.seed, self.homes, self.start = web, seed, homes, start[start >= 0]
        self.classes = Classes(len(start))
        self.labels: dict[int, IntArray] = {seed: start}  # arrays are never changed in place: forks share them
        self.whole = bool((start >= 0).all())
        self.queue: deque[int] = deque([seed])
        self.stuck: dict[tuple[int, int], Edge] = {}
        self.looked, self.one = 0, False  # whether all are one, and after how many unions that was looked at

    def fork(self, vertex: int, edge: Edge, factor: int) -> _Attempt:
        """The same labelling, with labels merged just enough to vary along one factor of a composite axis."""
        twin = copy(self)
        twin.classes = copy(self.classes)
        twin.classes.parent = self.classes.parent.copy()
        twin.labels, twin.queue, twin.stuck = dict(self.labels), deque([vertex]), dict(self.stuck)
        sizes = [self.web.sizes[d] for d in edge.dims]
        box = np.moveaxis(self.classes.find(self.labels[vertex]).reshape(sizes), factor, 0).reshape(sizes[factor], -1)
        first = np.broadcast_to(box.max(axis=1, keepdims=True), box.shape)
        held = box >= 0
        twin.classes.union(box[held], first[held])
        return twin

    def partition(self) -> bytes:
        """Which of the seed's elements are tied so far; two forks that tie the same ones end the same."""
        return self.classes.parent[self.start].tobytes()

    @property
    def collapsed(self) -> bool:
        """Whether all labels have become one class."""
        classes = self.classes
        if not classes.merged:
            return False
        if self.looked != classes.unions:
            roots = classes.parent[self.start]
            self.one, self.looked = bool((roots == roots[0]).all()), classes.unions
        return self.one

    def run(self) -> tuple[int, Edge] | None:
        """Propagate as far as possible; returns the first place where it is stuck, None where it is closed.

        Raises:
            _Duplicate: an earlier labelling is the same.
        """
        while True:
            while self.queue and not self.collapsed:
                vertex = self.queue.popleft()
                for edge in self.web.reached(vertex, self.labels[vertex]):
                    if vertex == edge.axis:
                        self._down(vertex, edge)
                    else:
                        self._up(vertex, edge)
            if self.collapsed:
                return None
            for (vertex, _), edge in list(self.stuck.items()):  # merges elsewhere may have set them free
                self._down(vertex, edge)
            if not self.queue:
                return next(((v, e) for (v, _), e in self.stuck.items()), None)

    def _up(self, vertex: int, edge: Edge) -> None:
        """From a dim to an axis."""
        dims = edge.dims
        sizes = [self.web.sizes[d] for d in dims]
        for which, dim in enumerate(dims):
            if dim == vertex:
                self._meet(edge.axis, push(edge.map, self.labels[vertex], which, sizes))

    def _down(self, vertex: int, edge: Edge) -> None:
        """From an axis to one dim."""
        labels = self.classes.find(self.labels[vertex])
        dims = edge.dims
        if len(dims) == 1:
            self._scatter(dims[0], labels, edge.map.lookup)
            return
        sizes = [self.web.sizes[d] for d in dims]
        alone = constant_along_others(labels, sizes)
        if not alone:
            self.stuck[(vertex, id(edge))] = edge
            return
        self.stuck.pop((vertex, id(edge)), None)
        box = np.moveaxis(labels.reshape(sizes), alone[0], 0).reshape(sizes[alone[0]], -1)
        self._meet(dims[alone[0]], box.max(axis=1))

    def _scatter(self, dim: int, labels: IntArray, lookup: IntArray | None) -> None:
        if lookup is None:
            self._meet(dim, labels)
            return
        held = (lookup >= 0) & (labels >= 0)
        places, found = lookup[held], labels[held]
        incoming = np.full(self.web.sizes[dim], -1)
        incoming[places] = found
        self.classes.union(found, incoming[places])  # an element that occurs twice ties its labels
        self._meet(dim, incoming)

    def _meet(self, vertex: int, incoming: IntArray) -> None:
        present = self.labels.get(vertex)
        if present is None:
            if (incoming < 0).all():
                return
            self.labels[vertex] = incoming
        else:
            if present is incoming or (present == incoming).all():
                return
            both = (present >= 0) & (incoming >= 0)
            self.classes.union(present[both], incoming[both])
            fresh = (present < 0) & (incoming >= 0)
            if not fresh.any():
                return
            self.labels[vertex] = np.where(fresh, incoming, present)
        if self.whole and vertex in self.homes and (self.labels[vertex] >= 0).all():
            raise _Duplicate
        if not self.queue or self.queue[-1] != vertex:
            self.queue.append(vertex)


def couple(web: Web) -> list[Coupled]:
    """All groups that own an element of a constant, in order of their first weight."""
    search = _Search(web)
    search.run()
    return search.found


class _Search:
    def __init__(self, web: Web) -> None:
        self.web = web
        self.found: list[Coupled] = []
        self.homes: set[int] = set()  # vertices whose elements some closed labelling tells apart
        self.covered: dict[int, np.ndarray] = {}  # axis vertex -> elements that some labelling tells apart
        self.signatures: set[bytes] = set()

    def run(self) -> None:
        for vertex in range(self.web.axes):
            if not isinstance(self.web.tensor_of[vertex][0], Use) or self.web.sizes[vertex] < 2:
                continue
            start = np.arange(self.web.sizes[vertex])
            covered = self.covered.get(vertex)
            if covered is not None:
                start[covered] = -1
            if (start >= 0).any() and not (covered is None and vertex in self.homes):
                self._grow(vertex, start)

    def _grow(self, seed: int, start: IntArray) -> None:
        """All closed labellings from a seed: one for each choice of factors where composites ask for one."""
        pending = [_Attempt(self.web, seed, start, self.homes)]
        collapsed: _Attempt | None = None
        before = len(self.found)
        seen: set[bytes] = set()
        while pending and len(seen) < _MOST_FORKS:
            attempt = pending.pop()
            if attempt.partition() in seen:
                continue
            seen.add(attempt.partition())
            try:
                stuck = attempt.run()
            except _Duplicate:
                collapsed = None
                before = -1
                continue
            self._cover(attempt)
            if attempt.collapsed:
                collapsed = collapsed or attempt
            elif stuck is None:
                self._keep(attempt)
            else:
                vertex, edge = stuck
                pending += [attempt.fork(vertex, edge, f) for f in reversed(range(len(edge.map.dims)))]
        if collapsed is not None and before == len(self.found):
            self._keep(collapsed)

    def _cover(self, attempt: _Attempt) -> None:
        known: dict[int, np.ndarray] = {}  # most vertices share one array of labels
        for vertex, labels in attempt.labels.items():
            if vertex >= self.web.axes:
                continue
            apart = known.get(id(labels))
            if apart is None:
                found = attempt.classes.find(labels)
                counts = np.bincount(found[found >= 0], minlength=len(attempt.classes.parent))
                apart = known[id(labels)] = (found >= 0) & (counts[found] == 1)
            before = self.covered.get(vertex)
            self.covered[vertex] = apart if before is None else before | apart

    def _keep(self, attempt: _Attempt) -> None:
        labels_by_vertex, size = _compact(attempt)
        if not attempt.collapsed:
            distinct = {id(a): a for a in labels_by_vertex.values() if len(a) == size}
            apart = {key for key, a in distinct.items() if (np.bincount(a + 1, minlength=size + 1)[1:] == 1).all()}
            self.homes.update(v for v, a in labels_by_vertex.items() if id(a) in apart)
        for own, count in _parts(self.web, labels_by_vertex, size):
            signature = _signature(own)
            if signature in self.signatures:
                continue
            self.signatures.add(signature)
            group = Coupled(attempt.seed, own, count, np.zeros(count, bool))
            if attempt.collapsed:
                group.pinned[:] = True
                text = "all its elements hang together: removing one removes all"
                group.reasons.append(Traced(text, vertex=attempt.seed))
            _judge(self.web, group)
            self.found.append(group)


_MOST_FORKS = 256
"""Labellings tried from one seed. Each fork merges, so real models end after a handful."""


def _signature(labels: dict[int, IntArray]) -> bytes:
    """A digest that two equal labellings share."""
    digest = blake2b(digest_size=16)
    texts = {id(a): blake2b(a.tobytes(), digest_size=16).digest() for a in {id(a): a for a in labels.values()}.values()}
    for vertex, held in labels.items():
        digest.update(vertex.to_bytes(8, "little") + texts[id(held)])
    return digest.digest()


def _compact(attempt: _Attempt) -> tuple[dict[int, IntArray], int]:
    """Labels with classes numbered in order of first appearance, and the number of classes."""
    vertices = sorted(attempt.labels)
    ids = np.full(len(attempt.classes.parent) + 1, -1)  # the last entry stands for no class
    size = 0
    distinct = {id(attempt.labels[v]): attempt.labels[v] for v in vertices}
    for held in distinct.values():
        labels = attempt.classes.find(held)
        fresh = labels[(ids[labels] < 0) & (labels >= 0)]
        if fresh.size:
            roots, first = np.unique(fresh, return_index=True)
            ids[roots[np.argsort(first)]] = np.arange(size, size + len(roots))
            size += len(roots)
    compacted = {key: ids[attempt.classes.find(held)] for key, held in distinct.items()}
    return {v: compacted[id(attempt.labels[v])] for v in vertices}, size


def _parts(web: Web, labels: dict[int, IntArray], size: int) -> list[tuple[dict[int, IntArray], int]]:
    """Classes that only stand side by side, as groups of their own.

    Any class can go without the others, so which of them form a group is a matter of what belongs together: the query
    and the value dims that one fused projection computes do not, although they share its output axis. An axis that is
    nothing but the stretches that it is cut into, or joined from, holds no group together.
    """
    cut = [v for v in labels if v >= web.axes and len(web.stretches(v)) > 1]
    if not cut:
        return [(labels, size)]
    present = {id(a): _present(a, size) for a in {id(a): a for a in labels.values()}.values()}
    kinds = {v: present[id(a)] for v, a in labels.items()}
    containers = {kinds[v].tobytes() for v in cut if _divided(web, v, labels, kinds)}
    if not containers:
        return [(labels, size)]
    classes = Classes(size)
    for kind in {k.tobytes(): k for k in kinds.values()}.values():
        if kind.tobytes() not in containers:
            held = np.flatnonzero(kind)
            classes.union(held, np.full_like(held, held[0]))
    roots = np.unique(classes.parent)
    if len(roots) == 1 or (np.bincount(classes.parent)[roots] == 1).any():
        return [(labels, size)]
    parts = []
    for root in roots:
        own = np.flatnonzero(classes.parent == root)
        ids = np.full(size + 1, -1)
        ids[own] = np.arange(len(own))
        chosen = {v: ids[a] for v, a in labels.items() if kinds[v][own].any()}
        parts.append((chosen, len(own)))
    return parts


def _divided(web: Web, vertex: int, labels: dict[int, IntArray], kinds: dict[int, IntArray]) -> bool:
    """Whether a dim is the sum of disjoint stretches, each an axis of its own with classes of its own."""
    if (labels[vertex] < 0).any():
        return False
    pieces = {kinds[axis].tobytes(): kinds[axis] for axis in web.stretches(vertex) if axis in kinds}
    return len(pieces) > 1 and sum(int(p.sum()) for p in pieces.values()) == int(kinds[vertex].sum())


def _present(labels: IntArray, size: int) -> np.ndarray:
    """Which classes occur among labels; shape ``[size]``."""
    found = np.zeros(size + 1, bool)
    found[labels] = True  # no class, -1, falls on the last entry
    return found[:-1]


def _judge(web: Web, group: Coupled) -> None:
    """Collect pins."""
    for vertex, labels in group.labels.items():
        held = labels[labels >= 0]
        if vertex < web.axes:
            for edge in web.edges[vertex]:
                if edge.map.lookup is not None:
                    own = labels[(edge.map.lookup < 0) & (labels >= 0)]
                    if own.size:
                        group.pinned[own] = True
                        text = "the node itself makes some of its elements"
                        group.reasons.append(Traced(text, web.names[edge.node], vertex=vertex))
            if vertex in web.interface and web.interface[vertex] not in group.interface:
                group.interface.append(web.interface[vertex])
            if vertex in web.pins:
                group.pinned[held] = True
                group.reasons.append(Traced(web.pins[vertex], vertex=vertex))
            elif held.size == len(labels) and (held == held[0]).all():
                group.pinned[held[0]] = True
                group.reasons.append(Traced("without it an axis would be empty", vertex=vertex))
            continue
        node, d = web.dim(vertex)
        relation = web.relations[node]
        assert relation is not None
        dim = relation.dims[d]
        if dim.pinned is not None:
            group.pinned[held] = True
            group.reasons.append(Traced(dim.pinned, web.names[node], vertex=vertex))
