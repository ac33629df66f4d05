"""Whether what lies between a product and a score passes mixtures on as they are: tried on the numbers of a run.

Index maps say which element goes where, and which elements a node tells apart, not what it computes. So the nodes
between are run on a mixture of what the product made: where the operand of the score is then the same mixture of what
it was, they pass it. A scale, a transpose and a cut pass all mixtures; a rotation of pairs those that turn pairs; a
norm and a position that is added pass none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, helper

from graphprune.analysis.products import Product
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes.fit.laid import Laid
from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import part, run, session

_NEAR = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-4, np.dtype(np.float16): 2e-2}
"""How near mixtures must come, beside the largest number."""


@dataclass(frozen=True)
class Between:
    """The nodes from a tensor to another.

    Attributes:
        nodes: in order.
        reads: what they read beside it that inputs change.
        constants: every other tensor that they read.
        start, end: the two tensors.
    """

    nodes: tuple[NodeProto, ...]
    reads: tuple[str, ...]
    constants: frozenset[str]
    start: str
    end: str


def between(model: Model, start: str, end: str) -> Between:
    """The nodes of a model from a tensor to another."""
    reached = {start}
    forth = []
    for index in range(model.producer[start] + 1, model.producer[end] + 1 if start != end else 0):
        node = model.nodes[index]
        if reached.intersection(node.input):
            reached.update(node.output)
            forth.append(index)
    wanted, chain, reads = {end}, list[int](), set[str]()
    for index in reversed(forth):
        node = model.nodes[index]
        if wanted.intersection(node.output):
            chain.append(index)
            wanted.update(n for n in node.input if n in reached and n != start)
            reads.update(n for n in node.input if n and n not in reached)
    constants = {n for n in reads if n in model.constant_names}
    made, needed = set(constants), list[int]()
    for index in range(len(model.nodes) - 1, -1, -1) if constants - model.initializers.keys() else ():
        node = model.nodes[index]
        if made.intersection(node.output):
            needed.append(index)
            made.update(n for n in node.input if n)
    nodes = tuple(model.nodes[i] for i in sorted({*chain, *needed}))
    return Between(nodes, tuple(sorted(reads - constants)), frozenset(made), start, end)


@dataclass(frozen=True)
class Passed:
    """How mixtures pass.

    Attributes:
        table: as of :class:`Laid`; pairs may lie the other way round.
        gain: what a constant that is added to each output of a head comes to in the score, ``[heads]``; None where none
            can be added.
    """

    table: IntArray
    gain: FloatArray | None


def passed(laid: Laid, model: Model, product: Product, way: Between, values: Mapping[str, Values]) -> Passed | None:
    """What is to be known of mixtures that pass, None where they do not.

    Args:
        laid: the score.
        model: the pruned model.
        product: what makes the operand, in the pruned model.
        way: the nodes between.
        values: of one run: what the product made behind its bias, the operand, and what nodes between read.
    """
    start, mixed, size = values[way.start], laid.scores.mixed, laid.table.shape[1]
    before = laid.arranged(values[way.end], mixed, whole=False)
    near = _NEAR.get(start.dtype)
    if before is None or near is None or not before.size or not np.isfinite(before).all():
        return None
    rng = np.random.default_rng(0)
    with suppress(InputError), _running(model, way, values) as through:  # nodes that do not stand alone pass nothing
        drawn = laid.family.drawn(laid.heads, size, rng)
        fits = []
        for own in (laid, _turned(laid)) if laid.scores.tangled else (laid,):
            found = laid.arranged(through(own.mixed(start, product, drawn)), mixed, whole=False)
            fits += [own] if found is not None and _alike(found, before @ drawn[:, None], near) else []
        if len(fits) != 1:  # of two ways round, inputs must tell which it is
            return None
        if len(laid.family.free) < size:
            return Passed(fits[0].table, None)
        added = rng.standard_normal((laid.heads, size)) * np.abs(start).max()
        same = np.repeat(np.eye(size)[None], laid.heads, 0)
        found = laid.arranged(through(laid.mixed(start, product, same, added)), mixed, whole=False)
        return Passed(laid.table, None if found is None else _gain(found - before, added, near))
    return None


@contextmanager
def _running(model: Model, way: Between, values: Mapping[str, Values]) -> Iterator[Callable[[Values], Values]]:
    """What becomes of the start at the end."""
    if way.start == way.end:
        yield lambda value: value
        return
    feeds = {n: values[n] for n in (way.start, *way.reads)}
    kinds = {n: helper.np_dtype_to_tensor_dtype(np.dtype(v.dtype)) for n, v in feeds.items()}
    inputs = [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in feeds.items()]
    with session(part(model, way.nodes, way.constants, inputs, [way.end])) as active:
        yield lambda value: np.asarray(run(active, {**feeds, way.start: value}, [way.end])[0])


def _alike(found: Values, wanted: Values, near: float) -> bool:
    return bool(np.abs(found - wanted).max() <= near * np.abs(wanted).max())


def _gain(change: Values, added: FloatArray, near: float) -> FloatArray | None:
    """By how much a constant ``[heads, d]`` is multiplied to become a change ``[heads, instances, rows, d]``."""
    gain = np.einsum("hnrd,hd->h", change, added) / (np.square(added).sum(1) * change.shape[1] * change.shape[2])
    wanted = np.broadcast_to((gain[:, None] * added)[:, None, None], change.shape)
    return gain if (gain != 0).all() and _alike(change, wanted, near) else None


def _turned(laid: Laid) -> Laid:
    """The same with the two of each pair in each other's place."""
    table = laid.table.copy()
    i, j = laid.family.pairs.T
    table[:, i], table[:, j] = laid.table[:, j], laid.table[:, i]
    return replace(laid, table=table)
