"""Meters: what a model costs at any widths, for all numbers of one unit at once.

A cost is a sum of terms, each a function of the sizes of a few axes or dims: of a product the product of its dims, of
a weight the product of its axes. When the number of one unit changes, only the terms that it touches do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import mul

import numpy as np

from graphprune.analysis import Analysis, cost
from graphprune.model import Source, Use
from graphprune.passes.choose.widths import Widths
from graphprune.relation import Values
from graphprune.run.moments import FloatArray


@dataclass(frozen=True)
class Term:
    """A part of a cost.

    Attributes:
        vertices: axes or dims on whose sizes it depends.
        value: the part, for arrays of these sizes that are broadcast.
    """

    vertices: tuple[int, ...]
    value: Callable[[Sequence[Values | int]], Values | float]


class Meter:
    """A cost of a model at the widths that it is looked at with.

    Args:
        widths: the widths; whoever changes them tells (:meth:`put`).
        terms: what depends on them.
        rest: what does not.
    """

    def __init__(self, widths: Widths, terms: Sequence[Term], rest: float = 0.0) -> None:
        self.widths, self.rest = widths, rest
        moving = {v for number in range(len(widths.units)) for v in widths.touched(number)}
        self._terms = [t for t in terms if moving.intersection(t.vertices)]
        self.rest += sum(float(self._now(t)) for t in terms if not moving.intersection(t.vertices))
        self._values = [float(self._now(t)) for t in self._terms]
        self._parts: list[float | None] = [None] * -(-len(self._values) // _PART)
        at: dict[int, list[int]] = {}
        for k, term in enumerate(self._terms):
            for vertex in set(term.vertices):
                at.setdefault(vertex, []).append(k)
        self._of = [
            sorted({k for vertex in widths.touched(number) for k in at.get(vertex, ())})
            for number in range(len(widths.units))
        ]

    def _now(self, term: Term) -> Values | float:
        return term.value([self.widths.size(v) for v in term.vertices])

    @property
    def total(self) -> float:
        """What the model costs now."""
        for k, part in enumerate(self._parts):
            if part is None:  # a term of it has changed
                self._parts[k] = sum(self._values[k * _PART : (k + 1) * _PART])
        return self.rest + sum(part or 0.0 for part in self._parts)

    def along(self, number: int) -> FloatArray:
        """What it costs for each number of classes that goes of a unit; shape ``[size of the unit + 1]``."""
        own = self._of[number]
        fixed = self.total - sum(self._values[k] for k in own)
        found = np.full(self.widths.units[number].size + 1, fixed)
        sizes = {v: self.widths.along(v, number) for k in own for v in self._terms[k].vertices}
        for k in own:
            found += self._terms[k].value([sizes[v] for v in self._terms[k].vertices])
        return found

    def put(self, number: int) -> None:
        """The number of a unit has changed."""
        for k in self._of[number]:
            self._values[k] = float(self._now(self._terms[k]))
            self._parts[k // _PART] = None


_PART = 1024
"""Terms that are added up together; a sum of them is kept for as long as none of them changes."""


def macs(widths: Widths, gone: Set[int] = frozenset()) -> Meter:
    """Multiply-accumulates at the witness shape, as :func:`graphprune.analysis.cost.macs` counts them.

    Args:
        widths: the widths.
        gone: nodes that are not there any more.
    """
    net = widths.analysis.web
    products = [
        tuple(net.dim_start[node] + d for d in product)
        for node, relation in enumerate(net.relations)
        for product in (relation.macs if relation is not None and node not in gone else ())
    ]
    return Meter(widths, [Term(dims, _product) for dims in products])


def parameters(widths: Widths, gone: Set[int] = frozenset()) -> Meter:
    """Elements of weights, as :func:`graphprune.analysis.cost.parameters` counts them, with copies of shared ones.

    Args:
        widths: the widths.
        gone: nodes that are not there any more.
    """
    terms = _weights(widths, cost.elements, gone)
    return Meter(widths, terms, cost.parameters(widths.analysis.model) - _whole(widths.analysis, cost.elements))


def nbytes(widths: Widths, now: float) -> Meter:
    """Bytes of the file.

    Args:
        widths: the widths.
        now: bytes of the model before anything goes.
    """
    return Meter(widths, _weights(widths, cost.stored_bytes), now - _whole(widths.analysis, cost.stored_bytes))


def _product(sizes: Sequence[Values | int]) -> Values | float:
    return reduce(mul, sizes, 1.0)


def _weights(widths: Widths, worth: Callable[[Source], float], gone: Set[int] = frozenset()) -> list[Term]:
    """A term for each constant that nodes read."""
    found = []
    for root, uses in _uses(widths.analysis, gone):
        source = widths.analysis.model.sources[root]
        own = worth(source)
        if own:
            found.append(_shared(widths, [_axes(widths.analysis, use) for use in uses], own / prod(source.shape)))
    return found


def _whole(analysis: Analysis, worth: Callable[[Source], float]) -> float:
    return sum(worth(analysis.model.sources[root]) for root, _ in _uses(analysis))


def _uses(analysis: Analysis, gone: Set[int] = frozenset()) -> Iterator[tuple[str, list[Use]]]:
    found: dict[str, list[Use]] = {}
    for tensor in analysis.web.axis_of:
        if isinstance(tensor, Use) and tensor.node not in gone:
            found.setdefault(analysis.root(tensor), []).append(tensor)
    return iter(found.items())


def _axes(analysis: Analysis, use: Use) -> tuple[int, ...]:
    start = analysis.web.axis_of[use]
    return tuple(range(start, start + len(analysis.web.shapes[use])))


def _shared(widths: Widths, uses: Sequence[tuple[int, ...]], each: float) -> Term:
    """What a constant costs: a copy for each way in which it is cut, and one where it stays whole."""
    ways: list[tuple[int, ...]] = []
    for axes in uses:
        if not any(len(axes) == len(way) and widths.alike(axes, way) for way in ways):
            ways.append(axes)
    if len(ways) == 1:
        return Term(ways[0], lambda sizes: each * _product(sizes))
    full = [prod(widths.analysis.web.sizes[v] for v in way) for way in ways]

    def value(sizes: Sequence[Values | int]) -> Values:
        left = iter(sizes)
        own = [_product([next(left) for _ in way]) for way in ways]
        cut = sum((np.where(size < whole, size, 0) for size, whole in zip(own, full, strict=True)), np.asarray(0.0))
        stays = np.logical_or.reduce(
            np.broadcast_arrays(*(size >= whole for size, whole in zip(own, full, strict=True)))
        )
        return np.asarray(each * (cut + np.where(stays, max(full), 0)))

    return Term(tuple(v for way in ways for v in way), value)
