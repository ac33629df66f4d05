"""Where a quantised model keeps TensorRT from its sparse kernels of 8 bits.

TensorRT takes what is quantised from pairs of nodes that quantise and dequantise around a product. It has sparse
tactics only for products that are 8 bits in and 8 bits out, so that both factors are dequantised, and what comes of
them is quantised again before anything else reads it (NVIDIA/TensorRT#4694; the cure is that of
NVIDIA/Model-Optimizer#1664: quantise outputs too). Between the product and that node lies only what it fuses: a bias,
an activation, a scale, a skip that is dequantised itself; and what moves elements alone, which changes places with it.

Nodes are told by types and relations: what takes 8 bits to a float, element by element, with a zero point, dequantises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import TensorProto

from graphprune.analysis.reasons import Reason
from graphprune.analysis.shapes import Witness
from graphprune.analysis.web import Web
from graphprune.model import Model, Use, node_name
from graphprune.relation import Relation

EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Product:
    """A product whose factors are quantised, or its weight alone.

    Attributes:
        index: of the node.
        node: its name.
        breaks: why it is not 8 bits in and 8 bits out, with what to quantise; None where it is.
    """

    index: int
    node: str
    breaks: Reason | None


def products(model: Model, witness: Witness, net: Web) -> list[Product]:
    """The quantised products of a model, in the order of the nodes; empty where nothing is quantised.

    Args:
        model: in canonical form.
        witness: its sizes and types.
        net: its web.
    """
    look = _Look(model, witness, net)
    return [found for index in range(len(model.nodes)) if (found := look.product(index)) is not None]


class _Look:
    def __init__(self, model: Model, witness: Witness, net: Web) -> None:
        self.model, self.types, self.net = model, witness.first.types, net
        self.outputs = frozenset(model.output_names)
        self.captured = frozenset(name for names in model.captured.values() for name in names)

    def product(self, index: int) -> Product | None:
        """A node as a product; None where it is none, or none of its factors is quantised."""
        relation, node = self.net.relations[index], self.model.nodes[index]
        if relation is None or len(relation.macs) != 1:
            return None
        names = [node.input[k] for k in _factors(relation) if k < len(node.input)]
        name = node_name(self.model, index)
        if any(self.type(n) in EIGHT_BITS for n in names):
            text = "it multiplies integers by an operator of its own, which TensorRT does not read"
            return Product(index, name, Reason(text, name, "quantise as pairs of QuantizeLinear and DequantizeLinear"))
        quantised = [self.dequantised(n) for n in names]
        if not any(quantised):
            return None
        if not all(quantised):
            plain = names[quantised.index(False)]
            text = f"it reads {plain!r} in float, so that it is computed in float"
            return Product(index, name, Reason(text, name, f"quantise {plain!r}"))
        return Product(index, name, self.leaves(name, node.output[0]))

    def type(self, name: str) -> int:
        """Type of a tensor, of constants also."""
        root = self.model.root(name)
        return self.model.sources[root].dtype if root in self.model.sources else self.types.get(name, 0)

    def dequantised(self, name: str) -> bool:
        """Whether a tensor is made of 8 bits, be it moved since."""
        index = self.model.producer.get(self.model.root(name))
        relation = None if index is None else self.net.relations[index]
        if index is None or relation is None:
            return False
        first = self.model.nodes[index].input[0]
        if relation.moves is not None and self.type(first) in _FLOATS:
            return self.dequantised(first)
        return self.type(first) in EIGHT_BITS and self.type(name) in _FLOATS and _scales(relation)

    def leaves(self, product: str, made: str) -> Reason | None:
        """What keeps the output of a product from being quantised; None where nothing does."""
        reached, waiting = {made}, list[Use]()
        names = [made]
        while names:
            name = names.pop()
            if name in self.outputs or name in self.captured:
                where = "the model gives out" if name in self.outputs else "a subgraph reads"
                return self._breaks(product, name, f"{where} {name!r} in float")
            for use in self.model.uses.get(name, ()):
                if not self.quantises(use):
                    waiting.append(use)
            ready = [use for use in waiting if self.fused(use, reached)]
            for use in ready:
                waiting.remove(use)
                output = self.model.nodes[use.node].output[0]
                if output not in reached:
                    reached.add(output)
                    names.append(output)
        if not waiting:
            return None
        use = min(waiting, key=lambda u: u.node)
        node = self.model.nodes[use.node]
        name = node.input[use.input]
        reader = f"node {node_name(self.model, use.node)!r} ({node.op_type}) reads {name!r} in float"
        return self._breaks(product, name, reader)

    def _breaks(self, product: str, name: str, what: str) -> Reason:
        return Reason(f"its output is not quantised: {what}", product, f"quantise {name!r}")

    def quantises(self, use: Use) -> bool:
        """Whether a use takes a float to 8 bits."""
        relation, node = self.net.relations[use.node], self.model.nodes[use.node]
        into = relation is not None and use.input == 0 and _along(relation, 0)
        return into and self.type(node.output[0]) in EIGHT_BITS

    def fused(self, use: Use, reached: Iterable[str]) -> bool:
        """Whether TensorRT computes a use with the product, or the use moves elements alone."""
        relation, node = self.net.relations[use.node], self.model.nodes[use.node]
        if relation is None or len([o for o in node.output if o]) != 1 or self.type(node.output[0]) not in _FLOATS:
            return False
        if relation.moves is not None:
            return use.input == 0
        others = (n for n in node.input if n and n not in self.model.constant_names and n not in reached)
        return _along(relation, use.input) and all(self.dequantised(n) for n in others)


def _factors(relation: Relation) -> list[int]:
    """Inputs that a product multiplies: each has a dim that is summed over."""
    kept = {d for axes in relation.outputs for axis in axes or () for d in axis.dims}
    summed = {d for d in relation.macs[0] if d not in kept}
    return [k for k, axes in enumerate(relation.inputs) if any(d in summed for axis in axes or () for d in axis.dims)]


def _along(relation: Relation, position: int) -> bool:
    """Whether output 0 is made of an input element by element, and of nothing else along its axes."""
    axes = relation.outputs[0]
    dims = {d for axis in axes or () for d in axis.dims}
    plain = all(relation.dims[d].pinned is None and relation.dims[d].statistic is None for d in dims)
    free = plain and not any(relation.dims[d].summed or relation.dims[d].choice for d in dims)
    return free and not relation.macs and position < len(relation.inputs) and relation.inputs[position] == axes


def _scales(relation: Relation) -> bool:
    """Whether a node works element by element, with a scale or a zero point beside."""
    return bool(relation.masks) and not relation.macs and _along(relation, 0)
