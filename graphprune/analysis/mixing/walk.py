"""One pass over the nodes that a group touches, in their order: what each lets through, and what it joins."""

from __future__ import annotations

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.mixing.mixing import Gain, Meeting, Mixing, NotLinear, Segment, Strand
from graphprune.analysis.mixing.passing import Passing
from graphprune.analysis.mixing.strands import Together
from graphprune.analysis.web import Tensor
from graphprune.model import Use
from graphprune.relation import IntArray


def find_mixing(analysis: Analysis, group: Group) -> Mixing:
    """How a change of basis along a group passes.

    Raises:
        NotLinear: it does not; says at which node, and why.
    """
    if group.pinned.any():
        reason = group.reasons[0] if group.reasons else None
        raise NotLinear("some of its classes must stay as they are", reason.node if reason else "")
    walk = Walk(analysis, group)
    walk.run()
    return walk.found()


class Walk:
    """What is found on the way.

    Attributes:
        strands: of each vertex, axes and dims.
        spaces: strands that change by one matrix.
        near: those of them with neither a norm nor a gain between.
        bent: strands that orthogonal matrices alone may change.
        squares: tensors that hold squares of a vector's elements.
        means: tensors that hold the mean of a vector, and how often they are still to be taken off.
        fed: strands that a norm or a gain makes.
        normed, about: strands that a norm reads, as they are or about their mean.
    """

    def __init__(self, analysis: Analysis, group: Group) -> None:
        self.analysis, self.group, self.net = analysis, group, analysis.web
        self.strands: dict[int, IntArray] = {}
        self.spaces, self.near = Together(), Together()
        self.bent: list[Strand] = []
        self.squares: set[Tensor] = set()
        self.means: dict[Tensor, tuple[Tensor, int]] = {}
        self.meetings: list[Meeting] = []
        self.gains: list[Gain] = []
        self.fed: list[Strand] = []
        self.normed: list[Strand] = []
        self.about: list[Strand] = []
        self.centred: list[int] = []
        self.taken_off: list[tuple[int, int]] = []

    def run(self) -> None:
        """Ask every node.

        Raises:
            NotLinear: one of them is more than linear along the group.
        """
        labelled: dict[int, set[int]] = {}
        for vertex, labels in self.group.labels.items():
            self.strands[vertex] = self._cut(vertex, labels)
            if vertex >= self.net.axes:
                node, dim = self.net.dim(vertex)
                labelled.setdefault(node, set()).add(dim)
        for node in sorted(labelled):
            relation = self.net.relations[node]
            assert relation is not None
            Passing(self, node, relation, labelled[node]).judge()
        left = next((name for name, (_, count) in self.means.items() if count), None)
        if left is not None:
            raise NotLinear(f"its mean {left!r} is used for more than to be taken off")

    def _cut(self, vertex: int, labels: IntArray) -> IntArray:
        """The strands of a vertex: of each class the first element, then the second of each, and so on."""
        order = np.argsort(labels, kind="stable")
        order = order[labels[order] >= 0]
        counts = np.bincount(labels[order], minlength=self.group.size)
        if (counts != counts[0]).any() or not len(order):
            raise NotLinear(f"its classes do not stand side by side on {self.net.label(vertex, self.analysis.model)}")
        return order.reshape(self.group.size, -1).T

    def found(self) -> Mixing:
        """All of it as a value."""
        axes = {v: own for v, own in self.strands.items() if v < self.net.axes}
        every = [(v, k) for v, own in axes.items() for k in range(len(own))]
        roots = {strand: self.spaces.root(strand) for strand in every}
        numbers = {root: k for k, root in enumerate(dict.fromkeys(root for root, _ in roots.values()))}
        bent = {self.spaces.root(strand)[0] for strand in (*self.bent, *self.spaces.both)}
        parts = {strand: self.near.root(strand)[0] for strand in every}
        places = {root: k for k, root in enumerate(dict.fromkeys(parts.values()))}
        return Mixing(
            self.group,
            axes,
            {vertex: self.net.tensor_of[vertex][0] for vertex in axes},
            {strand: (numbers[root], sign) for strand, (root, sign) in roots.items()},
            frozenset(numbers[root] for root in bent if root in numbers),
            tuple(self.meetings),
            tuple(self.gains),
            self._segments(parts, places),
            {strand: places[root] for strand, root in parts.items()},
            tuple(self.centred),
            tuple(self.taken_off),
        )

    def _segments(self, parts: dict[Strand, Strand], places: dict[Strand, int]) -> dict[int, Segment]:
        found = {k: Segment() for k in places.values()}
        gains = {gain.use for gain in self.gains}
        read = {(m.node, i) for m in self.meetings for i in (m.left, m.right)}
        for (vertex, _), root in parts.items():
            use = self.net.tensor_of[vertex][0]
            own = found[places[root]]
            if isinstance(use, Use) and use not in gains and (use.node, use.input) not in read:
                own.written += [use] if use not in own.written else []
        for strand in self.fed:
            found[places[self.near.root(strand)[0]]].fed += 1
        for strand in self.normed:
            found[places[self.near.root(strand)[0]]].normed = True
        for strand in self.about:
            found[places[self.near.root(strand)[0]]].centred = True
        for meeting in self.meetings:
            for i in (meeting.left, meeting.right):
                tensor = self.net.tensors[(meeting.node, ("in", i))]
                for (vertex, _), root in parts.items():
                    if self.net.tensor_of[vertex][0] == tensor and meeting not in found[places[root]].meetings:
                        found[places[root]].meetings.append(meeting)
        return found
