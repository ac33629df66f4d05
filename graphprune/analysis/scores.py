"""Scores: products of two activations, of which one comes from a weight in a way that mixtures could pass.

A score sums ``q_d k_d`` over a dim that neither operand keeps to itself: queries and keys, in whatever operator. What
is mixed along d behind the weight that makes q is mixed in q, as long as what lies between only moves its elements.
Where each element of q comes from is followed back through the index maps of all nodes between. That no other reader
sees it, and whether a node tells elements of d from each other, is read off the same maps. What nodes compute beside, a
function of each element, the maps do not say: who mixes must try it on numbers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis
from graphprune.analysis.forms import Cut
from graphprune.analysis.products import Product, find_products
from graphprune.relation import Axes, IntArray, Relation, push
from graphprune.relation.relation import constant_along_others

Mask = npt.NDArray[np.bool_]
_FAR = 64
"""Nodes between a weight and a score at most."""

Marks = list[dict[int, IntArray]]
"""For each axis of a tensor, by letter the element of it that each element belongs to, -1 where it is of none.

Letters are dims, as vertices of the web: those of the score, and what these are made of where a node cuts them."""


@dataclass(frozen=True, eq=False)
class Scores:
    """A product of two activations, and a weight that makes one of them.

    Attributes:
        node: index of the node.
        name: the first tensor that it makes.
        reads: the two activations.
        cuts: of each, for each axis the letters that it is the product of.
        summed: the letter that is summed over.
        mixed: which of the two comes from the weight.
        product: what makes it; in the model that was analysed.
        end: the tensor behind its bias.
        heads: letters that its outputs hold beside the summed one.
        channels: for each of its outputs, groups first, the element of each of these letters, -1 where it is of none.
        classes: for each element of the summed letter a number that those share which hang together.
        tangled: whether elements of the summed letter reach the score as sums of several, of one class then.
        bound: for each element of the summed letter whether a node between tells it from others: by a factor of its
            own, or as it pins it.
        rows: for each letter of the rows of the product that of the operand that it lies along, None where it is
            of size 1; None where rows lie otherwise.
        shares: what becomes of the scores when something that ties all keys to each other has run over them, and how
            its axes are cut: the shares of a softmax, if that it is. None where there is nothing of the kind.
    """

    node: int
    name: str
    reads: tuple[str, str]
    cuts: tuple[Cut, Cut]
    summed: int
    mixed: int
    product: Product
    end: str
    heads: tuple[int, ...]
    channels: Mapping[int, IntArray]
    classes: IntArray
    tangled: bool
    bound: Mask
    rows: tuple[int | None, ...] | None
    shares: tuple[str, Cut] | None = None


def find_scores(analysis: Analysis, wanted: Mapping[int, object]) -> list[Scores]:
    """Every score over one of some dims, and each weight that makes an operand of it, in the order of the nodes.

    Args:
        analysis: of the model.
        wanted: vertices of the dims.
    """
    ends = {_end(analysis, p): p for p in find_products(analysis.model, analysis.rulings) if not p.form.inner}
    found: list[Scores] = []
    for node, relation in enumerate(analysis.web.relations):
        for pair, dim in _pairs(analysis, node, relation):
            if analysis.web.dim_start[node] + dim not in wanted:
                continue
            for mixed in (0, 1):
                found += _made(analysis, node, pair, dim, mixed, ends)
    return found


def _end(analysis: Analysis, product: Product) -> str:
    return product.output if product.adder is None else analysis.model.nodes[product.adder].output[0]


def _pairs(analysis: Analysis, node: int, relation: Relation | None) -> Iterator[tuple[tuple[int, int], int]]:
    """Two activations that a node multiplies, and the dim that it sums their products over."""
    if relation is None or not relation.macs or not relation.outputs or relation.outputs[0] is None:
        return
    names, constant = analysis.model.nodes[node].input, analysis.model.constant_names
    kept = {d for axis in relation.outputs[0] for d in axis.dims}
    there = {
        i: {d for axis in axes for d in axis.dims}
        for i, axes in enumerate(relation.inputs)
        if axes is not None and i < len(names) and names[i] and names[i] not in constant
        if all(axis.lookup is None for axis in axes)
    }
    for first, second in ((a, b) for a in there for b in there if a < b):
        for product in relation.macs:
            summed = [d for d in product if d in there[first] & there[second] and d not in kept]
            if len(summed) == 1 and there[first] | there[second] <= set(product):
                yield (first, second), summed[0]


def _made(
    analysis: Analysis, node: int, pair: tuple[int, int], dim: int, mixed: int, ends: Mapping[str, Product]
) -> Iterator[Scores]:
    net, proto = analysis.web, analysis.model.nodes[node]
    relation = net.relations[node]
    assert relation is not None
    reads = proto.input[pair[0]], proto.input[pair[1]]
    summed = net.dim_start[node] + dim
    walk = _Walk(analysis, summed, ends)
    if reads[0] == reads[1] or len(analysis.model.uses[reads[mixed]]) != 1:
        return
    walk.back(reads[mixed], _marks(analysis, node, relation.inputs[pair[mixed]] or ()))
    classes = _classes(analysis, summed, relation.dims[dim].size)
    for end in walk.found:
        product = ends[end]
        channels = walk.channels(product)
        if channels is None or summed not in channels or not walk.alone(end, reads[mixed]):
            continue
        heads = tuple(letter for letter in sorted(channels) if letter != summed)
        cuts = tuple(_cut(walk, net.dim_start[node], relation.inputs[i] or ()) for i in pair)
        shared = {n for axis in cuts[0] for n in axis} & {n for axis in cuts[1] for n in axis} - {summed}
        if shared <= walk.letters[end]:  # else one weight makes what several scores read
            shares = _shares(analysis, walk, node, relation)
            yield Scores(
                node,
                proto.output[0],
                reads,
                (cuts[0], cuts[1]),
                summed,
                mixed,
                product,
                end,
                heads,
                channels,
                classes,
                summed in walk.tangled,
                walk.bound(end, len(classes)),
                walk.rows(product),
                shares,
            )


def _marks(analysis: Analysis, node: int, axes: Axes) -> Marks:
    """What each axis of a tensor holds of the dims of a node."""
    start, relation, found = analysis.web.dim_start[node], analysis.web.relations[node], list[dict[int, IntArray]]()
    assert relation is not None
    for axis in axes:
        sizes = [relation.dims[d].size for d in axis.dims]
        found.append({start + d: push(axis, np.arange(sizes[k]), k, sizes) for k, d in enumerate(axis.dims)})
    return found


def _classes(analysis: Analysis, vertex: int, size: int) -> IntArray:
    """Which elements of a dim hang together, by the finest groups that have them; others stand alone."""
    held = [g.labels[vertex] for g in [*analysis.groups, *analysis.fixed] if vertex in g.labels]
    found = np.full(size, -1)
    for labels in sorted(held, key=lambda labels: -len(np.unique(labels[labels >= 0]))):
        fresh = (found < 0) & (labels >= 0)
        found[fresh] = labels[fresh] + found.max(initial=-1) + 1
    alone = found < 0
    found[alone] = found.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return found


def _cut(walk: _Walk, start: int, axes: Axes) -> Cut:
    return tuple(tuple(leaf for d in axis.dims for leaf in walk.leaves(start + d)) for axis in axes)


def _shares(analysis: Analysis, walk: _Walk, node: int, relation: Relation) -> tuple[str, Cut] | None:
    """What a node makes of scores that ties all elements of an axis to each other, a few nodes behind."""
    model, name = analysis.model, analysis.model.nodes[node].output[0]
    cut = _cut(walk, analysis.web.dim_start[node], relation.outputs[0] or ())
    if len(relation.macs) != 1 or relation.bends:
        return None
    for _ in range(8):
        uses = model.uses.get(name, [])
        behind = analysis.web.relations[uses[0].node] if len(uses) == 1 else None
        if behind is None or behind.macs or not behind.outputs or behind.outputs[0] is None:
            return None
        own, made = behind.inputs[uses[0].input], behind.outputs[0]
        name = model.nodes[uses[0].node].output[0]
        if own is None or [a.dims for a in own] != [a.dims for a in made] or any(a.lookup is not None for a in made):
            return None
        if any(behind.dims[d].pinned for axis in made for d in axis.dims):
            return name, cut
    return None


class _Walk:
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
            dims = self._down(product.adder, adder, adder.outputs[0] or (), self.ends_with(product))
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

    def ends_with(self, product: Product) -> str:
        """The tensor behind the bias of a product."""
        return _end(self.analysis, product)

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
