"""Tracing: which element of a weight's product each element of a tensor behind it comes from, by index maps alone.

From a tensor back to the products that make it, the last node first, so that what is read twice is known whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis
from graphprune.analysis.products import Product
from graphprune.relation import Axes, IntArray, Relation, push
from graphprune.relation.relation import constant_along_others

Mask = npt.NDArray[np.bool_]
_FAR = 64
"""Nodes between a weight and a score at most."""

Marks = list[dict[int, IntArray]]
"""For each axis of a tensor, by letter the element of it that each element belongs to, -1 where it is of none.

Letters are dims, as vertices of the web: those of the score, and what these are made of where a node cuts them."""


def end_of(analysis: Analysis, product: Product) -> str:
    """The tensor behind the bias of a product."""
    return product.output if product.adder is None else analysis.model.nodes[product.adder].output[0]


class Walk:
    """From an operand of a score back to the weights that make it."""

    def __init__(self, analysis: Analysis, summed: int, ends: Mapping[str, Product]) -> None:
        self.analysis, self.summed, self.ends = analysis, summed, ends
        self.marks: dict[str, Marks] = {}
        self.splits: dict[int, tuple[int, ...]] = {}
        self.tangled: set[int] = set()
        self.found: list[str] = []
        self.letters: dict[str, set[int]] = {}
        self.held: dict[int, Held] = {}

    def back(self, operand: str, marks: Marks) -> None:
        """Follow all that makes an operand, the last node first, so that what is read twice is known whole."""
        model, net = self.analysis.model, self.analysis.web
        self.marks[operand] = marks
        queue, steps = [(-model.producer.get(operand, -1), operand)], 0
        while queue and steps < _FAR:
            at, name = heapq.heappop(queue)
            steps += 1
            relation = net.relations[-at] if name in model.producer else None
            if name in self.ends:
                self.found.append(name)
                self.letters[name] = {letter for held in self.marks[name] for letter in held}
                continue
            if relation is None:
                continue
            dims = self._down(-at, relation, relation.outputs[list(model.nodes[-at].output).index(name)] or (), name)
            self.held.setdefault(-at, {}).update(dims)
            for position, axes in enumerate(relation.inputs):
                source = model.nodes[-at].input[position] if axes is not None else ""
                if source and source not in model.constant_names and axes is not None:
                    known = source in self.marks
                    if self._meet(source, _up(relation, axes, dims)) and not known:
                        heapq.heappush(queue, (-model.producer.get(source, -1), source))

    def leaves(self, letter: int) -> tuple[int, ...]:
        """What a letter was cut into."""
        return tuple(leaf for own in self.splits.get(letter, ()) for leaf in self.leaves(own)) or (letter,)

    def channels(self, product: Product) -> dict[int, IntArray] | None:
        """For each output of a product, groups first, the element of every letter that they hold."""
        net, own = self.analysis.web, (*product.form.groups, *product.form.outputs)
        name = product.output
        relation = net.relations[product.node]
        assert relation is not None
        if product.adder is not None:
            adder = net.relations[product.adder]
            assert adder is not None
            dims = self._down(product.adder, adder, adder.outputs[0] or (), self.end(product))
            self._meet(name, _up(adder, adder.inputs[self._position(product)] or (), dims))
        if name not in self.marks:
            return None
        dims = self._down(product.node, relation, relation.outputs[0] or (), name)
        sizes = [relation.dims[n].size for n in own if isinstance(n, int)]
        if len(sizes) < len(own):
            return None
        found: dict[int, IntArray] = {}
        for k, n in enumerate(own):
            for letter, held in dims.get((int(n),), {}).items():
                shape = [-1 if place == k else 1 for place in range(len(sizes))]
                found[letter] = np.broadcast_to(held.reshape(shape), sizes).reshape(-1)
        return found

    def rows(self, product: Product) -> tuple[int | None, ...] | None:
        """The letters that the rows of a product lie along."""
        relation = self.analysis.web.relations[product.node]
        assert relation is not None
        dims = self._down(product.node, relation, relation.outputs[0] or (), product.output)
        found: list[int | None] = []
        for n in product.form.rows:
            held = dims.get((n,), {}) if isinstance(n, int) else {}
            own = [k for k, labels in held.items() if k != self.summed and (labels == np.arange(len(labels))).all()]
            if len(own) > 1 or (not own and not (isinstance(n, str) and n.startswith("row"))):
                return None
            found.append(own[0] if own else None)
        return tuple(found)

    def end(self, product: Product) -> str:
        """The tensor behind the bias of a product."""
        return end_of(self.analysis, product)

    def _position(self, product: Product) -> int:
        assert product.adder is not None
        return list(self.analysis.model.nodes[product.adder].input).index(product.output)

    def alone(self, end: str, operand: str) -> bool:
        """Whether what an end holds of the score reaches nothing but the operand."""
        model, ahead = self.analysis.model, [end]
        seen = {end}
        while ahead:
            name = ahead.pop()
            if name == operand:
                continue
            if name in model.output_names or any(name in names for names in model.captured.values()):
                return False
            for use in model.uses.get(name, []):
                for k, made in enumerate(model.nodes[use.node].output):
                    if made in self.marks:
                        if made not in seen:
                            seen.add(made)
                            ahead.append(made)
                    elif made and not self._spared(name, use.node, use.input, k):
                        return False
        return operand in seen

    def bound(self, end: str, size: int) -> Mask:
        """For each element of the summed letter whether a node behind an end tells it from the others."""
        model, found, reached = self.analysis.model, np.zeros(size, bool), {end}
        for node in sorted(self.held):
            inputs, outputs = model.nodes[node].input, model.nodes[node].output
            relation = self.analysis.web.relations[node]
            if relation is None or not reached.intersection(inputs):
                continue
            reached.update(n for n in outputs if n in self.marks)
            own = {d for d, dim in enumerate(relation.dims) if dim.pinned or dim.statistic or dim.summed}
            for position, axes in enumerate(relation.inputs):
                own |= {d for a in axes or () for d in a.dims if inputs[position] not in reached}
            for dims, letters in self.held[node].items():
                if self.summed in letters and own.intersection(dims):
                    labels = letters[self.summed]
                    found[labels[labels >= 0]] = True
        return found

    def _spared(self, name: str, node: int, position: int, output: int) -> bool:
        """Whether nothing of the score in a tensor reaches an output of one of its readers."""
        relation = self.analysis.web.relations[node]
        own = None if relation is None else relation.inputs[position]
        made = None if relation is None else relation.outputs[output]
        if own is None or made is None:
            return False
        for axis, held in zip(own, self.marks[name], strict=True):
            if self.summed in held:
                if len(axis.dims) != 1 or axis.lookup is not None:
                    return False
                marked = held[self.summed] >= 0
                picks = [a.lookup for a in made if axis.dims[0] in a.dims]
                if not picks or any(p is None or marked[p[p >= 0]].any() for p in picks):
                    return False
        return True

    def _meet(self, name: str, marks: Marks) -> bool:
        """Take note of what a tensor holds; False where it holds nothing of what is summed."""
        if not any(self.summed in held and (held[self.summed] >= 0).any() for held in marks):
            return False
        if name not in self.marks:
            self.marks[name] = marks
            return True
        for present, incoming in zip(self.marks[name], marks, strict=True):
            for letter, held in incoming.items():
                before = present.get(letter, np.full_like(held, -1))
                if ((before >= 0) & (held >= 0) & (before != held)).any():
                    self.tangled.add(letter)
                present[letter] = np.where(before >= 0, before, held)
        return True

    def _down(self, node: int, relation: Relation, axes: Axes, name: str) -> Held:
        """From the axes of an output to the dims of its node."""
        found: Held = {}
        for axis, held in zip(axes, self.marks[name], strict=True):
            sizes = [relation.dims[d].size for d in axis.dims]
            for letter, labels in held.items() if axis.dims else ():
                if axis.lookup is not None:
                    whole = np.full(sizes[0], -1)
                    there = axis.lookup >= 0
                    whole[axis.lookup[there]] = labels[there]
                    found.setdefault(axis.dims, {})[letter] = whole
                    continue
                alone = constant_along_others(labels, sizes) if len(sizes) > 1 else [0]
                if alone:
                    box = np.moveaxis(labels.reshape(sizes), alone[0], 0).reshape(sizes[alone[0]], -1)
                    found.setdefault((axis.dims[alone[0]],), {})[letter] = box[:, 0]
                    continue
                found.setdefault(axis.dims, {})[letter] = labels
                if letter not in self.splits and (labels == np.arange(len(labels))).all() and letter != self.summed:
                    start = self.analysis.web.dim_start[node]
                    self.splits[letter] = tuple(start + d for d in axis.dims)
                    for d, size in zip(axis.dims, sizes, strict=True):
                        found.setdefault((d,), {})[start + d] = np.arange(size)
        return found


Held = dict[tuple[int, ...], dict[int, IntArray]]
"""What dims of a node hold of each letter; several in a row where it lies along them together."""


def _up(relation: Relation, axes: Axes, held: Held) -> Marks:
    """From the dims of a node to the axes of an input."""
    found: Marks = []
    for axis in axes:
        sizes = [relation.dims[d].size for d in axis.dims]
        marks = {
            letter: push(axis, labels, which, sizes)
            for which, d in enumerate(axis.dims)
            for letter, labels in held.get((d,), {}).items()
        }
        if len(axis.dims) > 1 and not marks:
            marks = dict(held.get(axis.dims, {}))
        found.append(marks)
    return found
