"""What rules say of the nodes of a model, for the model itself and for those that are made of it.

A model that was cut has nodes with the names of the original's and fewer elements. What a node says of its axes stays,
so no model but the first is analysed: its nodes are known by what they make. Nodes that compute constants are asked
again, since where the elements of a weight lie follows from sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from graphprune.analysis import forms
from graphprune.analysis.forms import Form, Letter
from graphprune.analysis.shapes import Constants, Witness
from graphprune.analysis.spans import Span, span
from graphprune.analysis.web import Web, ruled
from graphprune.model import Model
from graphprune.relation import Relation


@dataclass(frozen=True)
class Ruling:
    """What is known of one node.

    Attributes:
        index: of the node in the model that was analysed.
        operator: its domain and type: another node may have come to make what it made.
        relation: what it says.
        kinds: ``TensorProto`` data types of its inputs, where they are known.
        forms: how it is a product of an activation with a constant.
    """

    index: int
    operator: tuple[str, str]
    relation: Relation
    kinds: tuple[int | None, ...]
    forms: tuple[Form, ...]


class Rulings:
    """What is known of every node, by the first tensor that it makes."""

    def __init__(self, model: Model, witness: Witness, net: Web) -> None:
        self._net = net
        self._memo: dict[object, Relation] = {}
        self._rulings: dict[str, Ruling] = {}
        for index, relation in enumerate(net.relations):
            node = model.nodes[index]
            if relation is not None:
                kinds = tuple(witness.first.types.get(name) for name in node.input)
                own = tuple(_forms(model, node, relation))
                self._rulings[first(node)] = Ruling(index, (node.domain, node.op_type), relation, kinds, own)

    def of(self, node: NodeProto) -> Ruling | None:
        """What is known of a node of this model, or of one made of it."""
        found = self._rulings.get(first(node))
        return found if found is not None and found.operator == (node.domain, node.op_type) else None

    def joins(self, node: NodeProto) -> bool:
        """Whether a node adds one tensor to another."""
        found = self.of(node)
        return found is not None and found.relation.joint and len(node.input) == 2

    def constants(self, model: Model) -> Computed:
        """The relations of nodes of a model that compute constants."""
        return Computed(model, self._memo)

    def span(self, output: str, form: Form, letters: Iterable[Letter]) -> Span:
        """The span of some letters of a product, by what its node makes first; places of a window come last."""
        own = list(letters)
        places = prod(form.places[n] for n in own if n in form.places)
        return span(self._net, self._rulings[output].index, [n for n in own if isinstance(n, int)], places)


class Computed:
    """Relations of nodes that compute constants, at the sizes that a model has now."""

    def __init__(self, model: Model, memo: dict[object, Relation]) -> None:
        self._model, self._memo = model, memo
        self._facts = Constants(model)

    def __getitem__(self, index: int, /) -> Relation | None:
        return ruled(self._model, self._facts.witness(index), index, self._memo)


def first(node: NodeProto) -> str:
    """The first tensor that a node makes."""
    return next((o for o in node.output if o), "")


def _forms(model: Model, node: NodeProto, relation: Relation) -> list[Form]:
    if not relation.macs:
        return []
    there = [i for i, name in enumerate(node.input) if name]
    constants = [i for i in there if node.input[i] in model.constant_names]
    return forms.forms(relation, constants, [i for i in there if i not in constants])
