"""Scores: products of two activations, of which one comes from a weight in a way that mixtures could pass.

A score sums ``q_d k_d`` over a dim that neither operand keeps to itself: queries and keys, in whatever operator. What
is mixed along d behind the weight that makes q is mixed in q, as long as what lies between only moves its elements.
Where each element of q comes from is followed back through the index maps of all nodes between. That no other reader
sees it, and whether a node tells elements of d from each other, is read off the same maps. What nodes compute beside, a
function of each element, the maps do not say: who mixes must try it on numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.forms import Cut
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.tracing import Marks, Mask, Walk, end_of
from graphprune.relation import Axes, IntArray, Relation, push


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
    ends = {end_of(analysis, p): p for p in find_products(analysis.model, analysis.rulings) if not p.form.inner}
    found: list[Scores] = []
    for node, relation in enumerate(analysis.web.relations):
        for pair, dim in _pairs(analysis, node, relation):
            if analysis.web.dim_start[node] + dim not in wanted:
                continue
            for mixed in (0, 1):
                found += _made(analysis, node, pair, dim, mixed, ends)
    return found


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
    walk = Walk(analysis, summed, ends)
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


def _cut(walk: Walk, start: int, axes: Axes) -> Cut:
    return tuple(tuple(leaf for d in axis.dims for leaf in walk.leaves(start + d)) for axis in axes)


def _shares(analysis: Analysis, walk: Walk, node: int, relation: Relation) -> tuple[str, Cut] | None:
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
