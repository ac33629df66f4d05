"""Weights that could be products of two: those of products, and tables that rows are looked up in.

Of a product ``x W`` that makes one axis of a tensor, ``x A`` has the node's own form with fewer outputs, and what
multiplies it by ``B`` follows. Of a table rows of ``A`` are looked up, and multiplied by ``B``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.origins import readers
from graphprune.analysis.products import FLOATS, Product, find_products
from graphprune.analysis.reasons import Reason
from graphprune.analysis.rulings import first
from graphprune.model import Model, node_name
from graphprune.relation import Relation


@dataclass(frozen=True)
class Site:
    """A weight that could be a product of two.

    Attributes:
        weight: name of the constant.
        sums, outputs: its rows and columns as a matrix: what a product sums over, or the rows of a table, and what it
            makes.
        times: how many rows are multiplied at the witness shape; a weight costs so many times its elements.
        product: the product that it is of, None of a table.
        lookups: nodes that look up rows of it, by index.
        numbers: for each of these the tensor with the numbers of the rows.
    """

    weight: str
    sums: int
    outputs: int
    times: int
    product: Product | None = None
    lookups: tuple[int, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """How many elements the weight has."""
        return self.sums * self.outputs

    @property
    def readers(self) -> tuple[int, ...]:
        """The nodes that read it, by index."""
        return self.lookups if self.product is None else (self.product.node,)

    def nodes(self, model: Model) -> list[str]:
        """First outputs of the nodes that read it."""
        return [first(model.nodes[i]) for i in self.readers]

    def parameters(self, rank: int) -> int:
        """Elements of both factors."""
        return rank * (self.sums + self.outputs)

    def macs(self, rank: int | None) -> int:
        """Multiply-accumulates at a rank; None is the weight as it is."""
        if self.product is None:
            return 0 if rank is None else self.times * rank * self.outputs
        return self.times * (self.elements if rank is None else self.parameters(rank))


@dataclass(frozen=True, kw_only=True)
class Whole(Reason):
    """Why a weight stays as it is.

    Attributes:
        weight: name of the constant.
    """

    weight: str = ""


_LEAST = 16
"""Rows and columns below which a second node costs more than it saves."""


def find_sites(analysis: Analysis) -> tuple[list[Site], list[Whole]]:
    """Every weight that could be a product of two, in the order of the nodes; and why others could not."""
    found, whole, seen = list[Site](), list[Whole](), set[str]()
    for product in find_products(analysis.model, analysis.rulings, shared=True):
        if product.weight in seen:
            continue
        seen.add(product.weight)
        why = _hindrance(analysis.model, product)
        if why:
            whole.append(Whole(why, node_name(analysis.model, product.node), weight=product.weight))
            continue
        sums, outputs = product.widths[1], product.sizes[product.form.outputs[0]]
        found.append(Site(product.weight, sums, outputs, _times(analysis, product, sums * outputs), product))
    found += _tables(analysis)
    return sorted(found, key=lambda s: s.lookups[0] if s.product is None else s.product.node), whole


def _hindrance(model: Model, product: Product) -> str:
    """Why a product cannot be two, empty where it can."""
    form, (groups, sums) = product.form, product.widths
    read, beyond = readers(model, product.weight)
    if len(read) > 1 or beyond:
        return "its weight is read elsewhere too"
    if product.inner:
        return "the product is a step inside the node"
    if groups > 1:
        return "it is several products side by side"
    if len(form.outputs) != 1:
        return "what it makes lies along several dims"
    if min(sums, product.sizes[form.outputs[0]]) < _LEAST:
        return f"its weight has fewer than {_LEAST} rows or columns"
    axis = axis_of(product)
    last = axis == len(form.made) - 1
    if axis is None or not (last or (axis == 1 and form.window is not None)):
        return "what it makes lies along another axis than the last"
    return ""


def axis_of(product: Product) -> int | None:
    """The axis of the output that a product makes, None where it shares it with others."""
    form = product.form
    held = [a for a, letters in enumerate(form.made) if form.outputs[0] in letters]
    alone = [n for a in held for n in form.made[a] if n != form.outputs[0] and n not in form.groups]
    return held[0] if len(held) == 1 and not alone else None


def _times(analysis: Analysis, product: Product, elements: int) -> int:
    """How many rows a product multiplies at the witness shape."""
    relation = analysis.web.relations[product.node]
    assert relation is not None
    return sum(prod(relation.dims[d].size for d in own) for own in relation.macs) // elements


def _tables(analysis: Analysis) -> Iterator[Site]:
    """Constants that are read by nothing but lookups of rows."""
    model, relations = analysis.model, analysis.web.relations
    seen: set[str] = set()
    for node in model.nodes:
        for name in node.input:
            source = model.sources.get(name)
            if name in seen or source is None or source.kind == "fill" or source.dtype not in FLOATS:
                continue
            seen.add(name)
            read, beyond = readers(model, name)
            numbers = [None if (r := relations[u.node]) is None else _looked_up(r, u.input) for u in read]
            if beyond or not read or None in numbers or len(source.shape) != 2 or min(source.shape) < _LEAST:
                continue
            positions = [n for n in numbers if n is not None]
            shapes = [
                analysis.witness.shape(model.nodes[u.node].input[p]) for u, p in zip(read, positions, strict=True)
            ]
            yield Site(
                name, *source.shape, sum(prod(s or ()) for s in shapes), None,
                tuple(u.node for u in read),
                tuple(model.nodes[u.node].input[p] for u, p in zip(read, positions, strict=True)),
            )  # fmt: skip


def _looked_up(relation: Relation, position: int) -> int | None:
    """The input with the numbers of rows, where a node looks up rows of a table and gives them out along its last axis.

    Args:
        relation: of the node.
        position: the input that is the table.
    """
    table, made = relation.inputs[position], relation.outputs[0]
    if table is None or made is None or len(table) != 2 or not made:
        return None
    rows, columns = table[0].dims, table[1].dims
    alone = len(rows) == len(columns) == 1 and made[-1].dims == columns and made[-1].lookup is None
    return next((k for k, d in relation.numbers.items() if alone and (d,) == rows), None)
