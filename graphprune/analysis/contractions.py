"""Contractions: where a model sums over the elements of a dim, and the second moments of what it sums on given inputs.

What becomes of a removed class is decided there: nodes that pass values on one by one lose nothing else. A product with
a weight sums ``x_i W_i`` over i; with H the second moments of x about its mean (a bias makes up for the mean), weights
that change by D change the outputs by ``tr(D^T H D)``. A product of two activations sums ``q_d k_d^T`` over d; with the
same formula, D a column of ones where an element goes, and H the sum over the batch of ``(Q^T Q) * (K^T K)``, element
by element.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.spans import Span, span
from graphprune.progress import Steps, unseen
from graphprune.relation import Axes, IntArray, Values
from graphprune.run import positive
from graphprune.run.moments import FloatArray, Gathered, Moments
from graphprune.run.runtime import Feeds
from graphprune.run.staged import observed, waves

MANY, WIDE, LEAST, TIMES = 16384, 512, 4096, 2
"""Rows of one operator in all, over all runs: the first number where sums are no longer than the second; of longer sums
fewer, as each costs more, but at least the third number, and the fourth times as many as a sum is long."""


def rows_of_run(sums: int, runs: int) -> int:
    """How many rows of an operator are looked at in each of some runs of a model."""
    wanted = min(MANY, MANY * WIDE // max(sums, 1))
    return -(-max(wanted, LEAST, TIMES * sums) // max(runs, 1))


def chance(seed: int, name: str, run: int) -> np.random.Generator:
    """What chooses rows of a tensor in a run: the same ones for all that reads it, whatever else is chosen."""
    return np.random.default_rng((seed, zlib.crc32(name.encode()), run))


@dataclass(frozen=True)
class Contraction:
    """A sum over a dim.

    Attributes:
        node: index of the node.
        summed: the dims that are summed over, the places of a window last: an element for each row.
        mean: of the rows, shape ``[groups, sums]``.
        gram: second moments, shape ``[groups, sums, sums]``; of long sums in single precision.
        matrix: what rows are multiplied by, shape ``[groups, sums, outputs]``.
        adjustable: whether the matrix is a weight, which can make up for rows that go.
        axis: of a product of activations, the axis of the first of them that is summed over.
    """

    node: int
    summed: Span
    mean: FloatArray
    gram: Values
    matrix: FloatArray
    adjustable: bool
    axis: int | None = None

    def labels(self, group: Group) -> IntArray | None:
        """The class of each row, None where the group has none here."""
        return self.summed.labels(group.labels)

    @property
    def finite(self) -> bool:
        """Whether all is a number: activations and weights may overflow, and then their squares say nothing."""
        return all(bool(np.isfinite(held).all()) for held in (self.mean, self.gram, self.matrix))


class _Weighted:
    """A product with a weight."""

    def __init__(self, analysis: Analysis, product: Product) -> None:
        self.product, self.node, self.reads, self.output = product, product.node, [product.input], product.output
        self.summed = analysis.rulings.span(product.output, product.form, product.form.sums)
        self.moments = Moments.empty(*self.product.widths)
        self.rows = Gathered(self.moments.add, self.product.widths[1])

    def add(self, values: Feeds, seed: int, run: int, runs: int) -> None:
        x = values[self.product.input]
        most = rows_of_run(self.product.widths[1], runs)
        self.rows.add(self.product.rows(x, self.product.choose(x, most, chance(seed, self.product.input, run))[0]))

    def finish(self, analysis: Analysis) -> Contraction:
        self.rows.finish()
        matrix = self.product.matrix(analysis.model.array(self.product.weight)).astype(np.float64)
        gram = self.moments.centred
        kept = gram.astype(np.float32) if gram.shape[1] > positive.LARGE else gram
        return Contraction(self.node, self.summed, self.moments.mean, kept, matrix, True)


class _Paired:
    """A product of two activations; ``axes`` holds for each the axes of the batch, all others, and that summed over.

    Of an operand that ``about`` names, what is the same at all its positions changes nothing behind (see ``levels``).
    """

    def __init__(
        self, node: int, summed: Span, reads: list[str], output: str, axes: list[list[list[int]]], about: list[bool]
    ) -> None:
        self.node, self.summed, self.reads, self.output, self.axes = node, summed, reads, output, axes
        self.about = about
        self.gram: FloatArray | None = None

    def add(self, values: Feeds, seed: int, run: int, runs: int) -> None:
        grams = []
        for name, (batch, others, summed), about in zip(self.reads, self.axes, self.about, strict=True):
            x = values[name].astype(np.float32).transpose(batch + others + summed)
            rows = x.reshape(prod(x.shape[: len(batch)]), prod(x.shape[len(batch) : -1]), x.shape[-1])
            rows = rows - rows.mean(1, keepdims=True) if about else rows
            grams.append(rows.transpose(0, 2, 1) @ rows)
        found = np.einsum("bij,bij->ij", *grams, optimize=True).astype(np.float64)
        self.gram = found if self.gram is None else self.gram + found

    def finish(self, analysis: Analysis) -> Contraction:
        assert self.gram is not None
        size = len(self.gram)
        mean, gram, ones = np.zeros((1, size)), self.gram[None], np.ones((1, size, 1))
        return Contraction(self.node, self.summed, mean, gram, ones, False, axis=self.axes[0][2][0])


def observe(
    analysis: Analysis,
    groups: Iterable[Group],
    batches: Callable[[], Iterable[Feeds]],
    seed: int = 0,
    progress: Steps = unseen,
) -> list[Contraction]:
    """Every contraction over a class of some groups whose sums are finite, in the order of the nodes.

    Args:
        analysis: of the model.
        groups: the groups.
        batches: gives the calibration inputs.
        seed: of the choice of rows.
        progress: is told after each step how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    model = analysis.model.runnable
    there = (set(model.producer) | {i.name for i in model.inputs}) - model.constant_names  # what inputs change
    wanted = {v for g in groups for v in g.labels}
    pending = {
        c.node: c
        for c in _candidates(analysis)
        if c.summed.touches(wanted) and c.output in model.producer and there.issuperset(c.reads)
    }
    steps = waves(analysis.model, pending)
    made = [{c.output: c.reads for c in step} for step in steps]
    runs = sum(1 for _ in batches())
    for number, run, values in observed(model, made, batches, progress):
        for contraction in steps[number]:
            contraction.add(values, seed, run, runs)
    steps.clear()  # what is not held any more makes room for what is made of it
    found = (pending.pop(node).finish(analysis) for node in sorted(pending))
    return [contraction for contraction in found if contraction.finite]


def _candidates(analysis: Analysis) -> Iterable[_Weighted | _Paired]:
    for product in find_products(analysis.model, analysis.rulings, shared=True):
        yield _Weighted(analysis, product)
    for node in range(len(analysis.model.nodes)):
        paired = _paired(analysis, node)
        if paired is not None:
            yield paired


def _paired(analysis: Analysis, node: int) -> _Paired | None:
    """A node that is one sum over one dim of two activations, None where it is not."""
    net, model = analysis.web, analysis.model
    relation, proto = net.relations[node], model.nodes[node]
    if relation is None or len(relation.macs) != 1 or len(relation.inputs) != 2 or not all(relation.inputs):
        return None
    if len(proto.output) != 1 or any(n in model.constant_names for n in proto.input):
        return None
    inputs = [[a.dims for a in axes or ()] for axes in relation.inputs]
    kept = {d for axes in relation.outputs for a in axes or () for d in a.dims}
    summed = [d for d in relation.macs[0] if d not in kept]
    if len(summed) != 1 or any(len(dims) > 1 for axes in inputs for dims in axes):
        return None
    if any((summed[0],) not in axes for axes in inputs) or _looked_up(relation.inputs):
        return None
    shared = [d for d in relation.macs[0] if d in kept and all((d,) in axes for axes in inputs)]
    places = []
    for axes in inputs:
        batch = [axes.index((d,)) for d in shared]
        last = axes.index((summed[0],))
        places.append([batch, [k for k in range(len(axes)) if k not in (*batch, last)], [last]])
    blind = levels(analysis, node)
    about = [len(others) == 1 and bool(blind & {*inputs[k][others[0]]}) for k, (_, others, _) in enumerate(places)]
    return _Paired(node, span(net, node, summed), list(proto.input), proto.output[0], places, about)


_FAR = 8
"""Nodes at most between a product and what is blind to a part of it."""


def levels(analysis: Analysis, node: int) -> set[int]:
    """Dims of a node along which what is the same in its output changes nothing behind: keys before a softmax.

    Between the two may lie sums with something else, and factors that do not vary along the dim.
    """
    net, model = analysis.web, analysis.model
    relation = net.relations[node]
    if relation is None or not relation.outputs or relation.outputs[0] is None:
        return set()
    dims = [axis.dims[0] if len(axis.dims) == 1 and axis.lookup is None else None for axis in relation.outputs[0]]
    name = model.nodes[node].output[0]
    for _ in range(_FAR):
        uses = model.uses.get(name, [])
        if len(uses) != 1 or name in model.output_names:
            return set()
        behind, place = net.relations[uses[0].node], uses[0].input
        own = None if behind is None else behind.inputs[place]
        if behind is None or own is None:
            return set()
        if behind.level:
            return {
                d for d, axis in zip(dims, own, strict=True) if d is not None and set(axis.dims) <= set(behind.level)
            }
        made = behind.outputs[0]
        if behind.terms is None or made is None or [a.dims for a in made] != [a.dims for a in own]:
            return set()
        factors = {i for _, term in behind.terms if place in term for i in term if i != place}
        varying = {d for i in factors for a in behind.inputs[i] or () for d in a.dims}
        dims = [None if set(axis.dims) & varying else d for d, axis in zip(dims, own, strict=True)]
        name = model.nodes[uses[0].node].output[0]
    return set()


def _looked_up(inputs: Iterable[Axes | None]) -> bool:
    return any(a.lookup is not None for axes in inputs for a in axes or ())
