"""A model with all that it holds laid side by side: the nodes of its graph, of the bodies in it, and of its functions.

Two models are compared by what they compute, so what does not compute is looked through: a Constant node is a constant
as an initializer is one, and who reads what an Identity makes reads what the Identity reads.

A node that holds bodies stands behind the nodes of these. What a body takes is among what its holder makes, and what
it gives among what its holder reads, so that one step leads into a body as to any neighbour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from graphprune.model import Model
from graphprune.model.model import constant_tensor
from graphprune.relation import Shape, Values

NOTHING = -1
"""In place of a tensor or a node that is not there."""


@dataclass(slots=True)
class Node:
    """A node of the graph, of a body or of a function.

    Attributes:
        proto: the node.
        kind: of the graph that it is in: empty for the main graph, else which functions and bodies lead there.
        holder: the node that holds its body, ``NOTHING`` where it is in none.
        reads: tensors, ``NOTHING`` for an input that is left out; then what its bodies give.
        makes: tensors; then what its bodies take.
    """

    proto: NodeProto
    kind: str
    holder: int
    reads: list[int]
    makes: list[int]

    @property
    def op(self) -> tuple[str, str]:
        """Domain and operator."""
        return ("" if self.proto.domain == "ai.onnx" else self.proto.domain, self.proto.op_type)

    @property
    def label(self) -> str:
        """What to call it: its name, or its first output where it has none."""
        return self.proto.name or next((o for o in self.proto.output if o), "?")


@dataclass
class Constant:
    """A constant of a model.

    Attributes:
        name: of the tensor.
        tensor: type, dims and elements, or where these are.
        model: reads the elements.
    """

    name: str
    tensor: TensorProto
    model: Model = field(repr=False)
    _digest: bytes | None = field(default=None, repr=False)

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return tuple(self.tensor.dims)

    @property
    def array(self) -> Values:
        """Its elements, read now."""
        return self.model.tensor_array(self.tensor)

    @property
    def digest(self) -> bytes:
        """A hash of type, shape and elements."""
        if self._digest is None:
            value = np.ascontiguousarray(self.array)
            found = hashlib.blake2b(f"{self.tensor.data_type} {self.shape} ".encode(), digest_size=16)
            found.update(
                repr(value.tolist()).encode() if value.dtype == object else value.reshape(-1).view(np.uint8).data
            )
            self._digest = found.digest()
        return self._digest


@dataclass
class Flat:
    """A model laid flat. Tensors are numbers, since bodies may use a name anew.

    Attributes:
        model: the model.
        nodes: all nodes but Constant, each behind those that it reads.
        names: of the tensors.
        maker: of each tensor the node that makes it, and as what; ``NOTHING`` for inputs and constants.
        readers: of each tensor the nodes that read it, and as what.
        constants: tensors that are constants.
        inputs: tensors that the graph takes.
        outputs: tensors that the graph gives.
        functions: what each function of the model takes and gives, by ``domain:name``.
    """

    model: Model
    nodes: list[Node] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    maker: list[tuple[int, int]] = field(default_factory=list)
    readers: list[list[tuple[int, int]]] = field(default_factory=list)
    constants: dict[int, Constant] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    functions: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)

    def label(self, tensor: int) -> str:
        """What a tensor is called."""
        return "" if tensor == NOTHING else self.names[tensor]

    def unread(self, tensor: int) -> bool:
        """Whether a tensor changes nothing: no node reads it, and neither the graph nor a function gives it."""
        given = [self.outputs, *(gives for _, gives in self.functions.values())]
        return not self.readers[tensor] and not any(tensor in own for own in given)


def flatten(model: Model) -> Flat:
    """Lay a model flat."""
    laying = _Laying(Flat(model))
    laying.graph(model.graph, model.nodes, {}, "", NOTHING)
    for function in model.proto.functions:
        laying.function(f"{function.domain}:{function.name}", function.input, function.output, function.node)
    flat = laying.flat
    for index, node in enumerate(flat.nodes):
        for slot, tensor in enumerate(node.reads):
            if tensor != NOTHING:
                flat.readers[tensor].append((index, slot))
        for slot, tensor in enumerate(node.makes):
            if tensor != NOTHING:
                flat.maker[tensor] = (index, slot)
    return flat


class _Laying:
    def __init__(self, flat: Flat) -> None:
        self.flat = flat

    def graph(
        self, graph: GraphProto, nodes: Iterable[NodeProto], outer: dict[str, int], kind: str, holder: int
    ) -> tuple[list[int], list[int]]:
        """Lay a graph; gives what it takes and what it gives."""
        flat, known = self.flat, dict(outer)
        held = {t.name for t in graph.initializer}
        taken = [self._tensor(known, i.name) for i in graph.input if i.name not in held]
        for tensor in graph.initializer:
            self._constant(known, tensor.name, tensor)
        if not kind:
            flat.inputs = taken
        self._nodes(nodes, known, kind, holder)
        given = [known.get(o.name, NOTHING) for o in graph.output]
        if not kind:
            flat.outputs = given
        return taken, given

    def function(self, name: str, takes: Sequence[str], gives: Sequence[str], nodes: Iterable[NodeProto]) -> None:
        """Lay a function."""
        known: dict[str, int] = {}
        taken = [self._tensor(known, name) for name in takes]
        self._nodes(nodes, known, name, NOTHING)
        self.flat.functions[name] = taken, [known.get(name, NOTHING) for name in gives]

    def _nodes(self, nodes: Iterable[NodeProto], known: dict[str, int], kind: str, holder: int) -> None:
        for proto in nodes:
            plain = proto.domain in ("", "ai.onnx")
            value = constant_tensor(proto) if plain and proto.op_type == "Constant" else None
            if value is not None:
                self._constant(known, proto.output[0], value)
                continue
            reads = [known.get(name, NOTHING) if name else NOTHING for name in proto.input]
            makes, given = [], []
            inside: list[Node] = []
            for label, body in _bodies(proto):
                # bodies come first, so their holder's place is known only when they are laid
                start = len(self.flat.nodes)
                taken, results = self.graph(body, body.node, known, f"{kind}/{proto.op_type}.{label}", _LATER)
                inside += [node for node in self.flat.nodes[start:] if node.holder == _LATER]
                makes += taken
                given += results
            for node in inside:
                node.holder = len(self.flat.nodes)
            through = plain and proto.op_type == "Identity" and reads[:1] not in ([], [NOTHING])
            outputs = [self._tensor(known, name) if name else NOTHING for name in proto.output]
            self.flat.nodes.append(Node(proto, kind, holder, reads + given, outputs + makes))
            if through:
                known[proto.output[0]] = reads[0]

    def _tensor(self, known: dict[str, int], name: str) -> int:
        flat = self.flat
        known[name] = len(flat.names)
        flat.names.append(name)
        flat.maker.append((NOTHING, 0))
        flat.readers.append([])
        return known[name]

    def _constant(self, known: dict[str, int], name: str, tensor: TensorProto) -> None:
        self.flat.constants[self._tensor(known, name)] = Constant(name, tensor, self.flat.model)


_LATER = -2


def _bodies(node: NodeProto) -> list[tuple[str, GraphProto]]:
    found = []
    for attribute in sorted(node.attribute, key=lambda a: a.name):
        if attribute.type == AttributeProto.GRAPH:
            found.append((attribute.name, attribute.g))
        elif attribute.type == AttributeProto.GRAPHS:
            found += [(f"{attribute.name}[{k}]", g) for k, g in enumerate(attribute.graphs)]
    return found
