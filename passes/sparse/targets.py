"""Which weights are made sparse, and why others are not.

Left out are weights that TensorRT could not read by sparse kernels (see ``graphprune.analysis.sparsity``), those
smaller than one tile of a sparse tensor core (``mma.sp`` of PTX: 16 outputs by sums of 32, of 64 for 8 bits), and the
first and the last layers, to which accuracy is most sensitive: those that nothing with a weight lies before, or
behind. What is named by ``also`` or ``include`` is taken all the same, as far as there is an axis for a pattern to lie
along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.analysis import Analysis, sparsity
from graphprune.analysis.origins import readers
from graphprune.analysis.patterns import SPARSE, Pattern
from graphprune.analysis.reasons import Reason
from graphprune.analysis.sparsity import Layer
from graphprune.analysis.web import Web
from graphprune.errors import InputError
from graphprune.model import Model, naming
from graphprune.relation import Relation

TILE = 16, 32
"""Outputs and sums of one sparse product of tensor cores in 16 bits; of 8 bits it sums twice as many."""


@dataclass(frozen=True)
class Target:
    """A weight to make sparse.

    Attributes:
        weight: name of the constant.
        layers: those that read it, all along one axis.
    """

    weight: str
    layers: tuple[Layer, ...]

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that read it."""
        return [layer.node for layer in self.layers]


@dataclass(frozen=True)
class Skipped(Reason):
    """Why a product with a weight stays dense.

    Attributes:
        weight: name of the constant.
    """

    weight: str = field(kw_only=True)


@dataclass(frozen=True)
class Scope:
    """What the user asks for.

    Attributes:
        include: globs on names of nodes and weights: these and no others, whatever speaks against them.
        exclude: globs: not these.
        also: globs: these too, whatever speaks against them.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    also: Sequence[str] = ()


def choose(analysis: Analysis, pattern: Pattern, scope: Scope) -> tuple[list[Target], list[Skipped]]:
    """The weights of a model to make sparse.

    Args:
        analysis: of the model.
        pattern: the pattern.
        scope: what the user asks for.

    Raises:
        InputError: a glob matches nothing, which is most likely a slip.
    """
    model, net = analysis.model, analysis.web
    found = list(sparsity.find_layers(model, analysis.witness, net, True, pattern))
    _check(model, scope, found)
    first, last = ends(model, net, {layer.index for layer in found})
    by_weight: dict[str, list[Layer]] = {}
    for layer in found:
        by_weight.setdefault(layer.weight, []).append(layer)
    targets: list[Target] = []
    skipped: list[Skipped] = []
    for weight, own in by_weight.items():
        alone = {own[0].index} if len(own) == 1 else set()  # what is read again elsewhere is no matter of the ends
        reasons = [_reason(layer, pattern, scope, first & alone, last & alone) for layer in own]
        named = any(_named(layer, (*scope.include, *scope.also)) for layer in own)
        bar = _unwritable(model, weight) or _shared(model, own, named)
        other = next((layer.node for layer, why in zip(own, reasons, strict=True) if why), None)
        if not any(reasons) and not bar:
            targets.append(Target(weight, tuple(own)))
            continue
        beside = f"its weight is shared with node {other!r}, which stays" if other is not None else bar
        skipped += [Skipped(why or beside, n.node, weight=weight) for n, why in zip(own, reasons, strict=True)]
    return targets, skipped


def _unwritable(model: Model, weight: str) -> str:
    source = model.sources.get(weight)
    if source is not None and source.kind == "fill":
        return "its weight is one number everywhere, made from a shape"
    return ""


def _named(layer: Layer, globs: Iterable[str]) -> bool:
    return naming.meets((layer.node, layer.weight), globs)


def _check(model: Model, scope: Scope, layers: Sequence[Layer]) -> None:
    for glob in (*scope.include, *scope.exclude, *scope.also):
        if not any(_named(layer, [glob]) for layer in layers):
            known = [name for layer in layers for name in (layer.node, layer.weight)]
            hint = naming.near(glob, known, otherwise="; 'graphprune inspect --sparsity' lists them")
            raise InputError(f"{model.name}: {glob!r} matches no product with a weight{hint}")


def _reason(layer: Layer, pattern: Pattern, scope: Scope, first: set[int], last: set[int]) -> str:
    """Why a layer stays dense; empty where it does not."""
    if layer.lost is not None:
        return str(layer.lost)
    if pattern.block > 1 and layer.axis is None:
        return str(layer.reasons[0])
    if pattern.block > 1 and layer.sums < pattern.block:
        return f"it sums over {layer.sums}, less than one block of {pattern}"
    if _named(layer, scope.exclude):
        return "excluded"
    if _named(layer, (*scope.include, *scope.also)):
        return ""
    if scope.include:
        return "not included"
    if pattern == SPARSE and layer.reasons:
        return str(layer.reasons[0])
    if layer.sums % pattern.block:
        return f"it sums over {layer.sums}, no multiple of {pattern.block}"
    rows, columns = TILE[0], TILE[1] * (2 if layer.eight_bits else 1)
    if layer.axis is not None and (layer.outputs < rows or layer.sums < columns):
        own = f"{layer.outputs} outputs and sums of {layer.sums}"
        return f"it is small: {own} are less than a tile, {rows} by {columns}"
    if layer.index in first:
        return "it is a first layer: nothing with a weight lies before it"
    return "it is a last layer: nothing with a weight lies behind it" if layer.index in last else ""


def _shared(model: Model, layers: Sequence[Layer], named: bool) -> str:
    """What beside these layers, or in another way than the first of them, reads their weight.

    Args:
        model: the model.
        layers: all that read the weight.
        named: whether the user asks for it by name: then others may read it too.
    """
    for other in layers[1:]:
        if other.axis != layers[0].axis or not _alike(layers[0], other):
            return f"its weight is shared with node {other.node!r}, which sums along another axis of it"
    if named:
        return ""
    read, beyond = readers(model, layers[0].weight)
    if beyond:
        return "its weight is read in a subgraph, or is an output of the graph"
    return "its weight is also read by a node that is no product" if len(read) > len(layers) else ""


def _alike(a: Layer, b: Layer) -> bool:
    if a.origin is None or b.origin is None:
        return False
    one, other = a.origin.order, b.origin.order
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def ends(model: Model, net: Web, layers: set[int]) -> tuple[set[int], set[int]]:
    """The layers that nothing with a weight lies before, and those that none of them lies behind.

    A table that elements are picked from (an embedding) counts as a weight that lies before what reads it.
    """
    reads = [[*node.input, *model.captured.get(i, ())] for i, node in enumerate(model.nodes)]
    behind: set[str] = set()
    first: set[int] = set()
    for index, node in enumerate(model.nodes):
        before = any(name in behind for name in reads[index])
        if index in layers and not before:
            first.add(index)
        if before or index in layers or _weighs(model, index, net.relations[index]):
            behind.update(o for o in node.output if o)
    ahead: set[str] = set()
    last: set[int] = set()
    for index in reversed(range(len(model.nodes))):
        after = any(o in ahead for o in model.nodes[index].output)
        if index in layers and not after:
            last.add(index)
        if after or index in layers or _multiplies(model, index, net.relations[index]):
            ahead.update(n for n in reads[index] if n and n not in model.constant_names)
    return first, last


def _multiplies(model: Model, index: int, relation: Relation | None) -> bool:
    """Whether a node is a product with a constant, be it of sums over one element."""
    return (
        relation is not None
        and bool(relation.macs)
        and any(n in model.constant_names for n in model.nodes[index].input)
    )


def _weighs(model: Model, index: int, relation: Relation | None) -> bool:
    """The same, or picks elements of a constant by what it computes: an axis of the constant is on no output."""
    if relation is None or all(n in model.constant_names for n in model.nodes[index].input if n):
        return False
    if _multiplies(model, index, relation):
        return True
    kept = {d for axes in relation.outputs for axis in axes or () for d in axis.dims}
    return any(
        axes is not None and any(d not in kept for axis in axes for d in axis.dims)
        for name, axes in zip(model.nodes[index].input, relation.inputs, strict=False)
        if name in model.constant_names
    )
