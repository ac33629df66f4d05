"""Graphs of a proto: what is made, and what is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from graphprune.errors import InputError
from graphprune.model.bodies import subgraphs
from graphprune.model.checked import nodes, tensors, text
from graphprune.model.checked.outside import Outside

DEEPEST = 30
"""How deep graphs may stand in each other. Protobuf reads no file whose messages are nested 100 deep: 33 graphs."""


@dataclass(frozen=True)
class Scope:
    """Where in a model one looks.

    Attributes:
        model: what to call the model.
        outside: files beside it.
        inside: what to call the place, where that is not the main graph.
        outer: names of the graphs around it.
        formal: attributes of the function that it is in; None in none.
    """

    model: str
    outside: Outside
    inside: str = ""
    outer: tuple[Set[str], ...] = ()
    formal: frozenset[str] | None = None

    @property
    def where(self) -> str:
        """The model and the place in it."""
        return self.model + self.inside

    def label(self, node: NodeProto, place: int) -> str:
        """The model and what to call a node: its name, its first output, or its place."""
        name = node.name or next((o for o in node.output if o), f"#{place}")
        return f"{self.model}: node {name!r} ({node.op_type}){self.inside}"

    def body(self, node: NodeProto, names: Set[str]) -> Scope:
        """Of a graph that a node of this place holds."""
        called = node.name or next(o for o in node.output if o)
        return replace(self, inside=f"{self.inside}, in {node.op_type} {called!r}", outer=(*self.outer, names))

    def has(self, name: str) -> bool:
        """Whether a name is one of the graphs around."""
        return any(name in names for names in self.outer)


def see(graph: GraphProto, scope: Scope) -> None:
    """See that a graph, and those in it, make each name once and read what is made.

    Raises:
        InputError: it does not.
    """
    if len(scope.outer) > DEEPEST:
        raise InputError(f"{scope.where}: graphs stand more than {DEEPEST} deep in each other; lay some of them open")
    text.see_fields(graph, f"{scope.where}: graph")
    _values(graph, scope)
    own = _given(graph, scope)
    see_nodes(graph.node, own, scope)
    for value in graph.output:
        if not value.name or not (value.name in own or scope.has(value.name)):
            raise InputError(
                f"{scope.where}: the graph's output {value.name!r} is made by no node; declare one that is"
            )


def see_nodes(listed: Sequence[NodeProto], own: set[str], scope: Scope) -> None:
    """See to the nodes of a graph or a function, in any order.

    Args:
        listed: the nodes.
        own: names that are there without them; gets those that they make.
        scope: the place that they are in.
    """
    for place, node in enumerate(listed):
        for name in node.output:
            if name and name in own:
                label = scope.label(node, place)
                raise InputError(f"{label}: its output {name!r} is already the name of another tensor; rename one")
            own.add(name)
    text.see(own, f"{scope.where}: the name of a tensor")
    own.add("")  # what is left out
    for place, node in enumerate(listed):
        label = scope.label(node, place)
        nodes.see(node, label, scope.outside, scope.formal)
        for name in node.input:
            if name not in own and not scope.has(name):
                text.see([name], label)
                raise InputError(f"{label}: its input {name!r} is made by no node; name one that is, or leave it out")
        for body in subgraphs(node):
            if not any(node.output):
                raise InputError(f"{label} holds a graph and has no output; take it out of the model")
            see(body, scope.body(node, own))


def _given(graph: GraphProto, scope: Scope) -> set[str]:
    """Names of inputs and initializers."""
    where, inputs = scope.where, {value.name: value for value in graph.input}
    if len(inputs) < len(graph.input) or "" in inputs:
        told = "has no name" if "" in inputs else f"{_twice(v.name for v in graph.input)!r} is there twice"
        raise InputError(f"{where}: an input of the graph {told}; give each a name of its own")
    own = set(inputs)
    for tensor in graph.initializer:
        label = f"{where}: initializer {tensor.name!r}"
        if not tensor.name:
            raise InputError(f"{where}: an initializer of dims {tuple(tensor.dims)} has no name; give it one")
        tensors.see(tensor, label, scope.outside)
        if tensor.name in inputs:
            _fits(inputs[tensor.name], tensor, label)
        own.add(tensor.name)
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        label = f"{where}: sparse initializer {name!r}"
        if not name or name in own:
            raise InputError(f"{label} has {'the name of another tensor' if name else 'no name'}; give it one")
        tensors.see_sparse(sparse, label, scope.outside)
        own.add(name)
    return own


def _values(graph: GraphProto, scope: Scope) -> None:
    main = not scope.outer and scope.formal is None
    for what, values in (("input", graph.input), ("output", graph.output), ("value", graph.value_info)):
        for value in values:
            text.see([value.name], scope.where)
            _declared(value.type, f"{scope.where}: the graph's {what} {value.name!r}", main and what == "input")


def _declared(kind: TypeProto, called: str, needed: bool) -> None:
    """See to a declared type; only inputs of a main graph must have one."""
    held = kind.WhichOneof("value")
    if held in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(kind, held)
        if not tensors.known(tensor.elem_type) and (needed or tensor.elem_type != TensorProto.UNDEFINED):
            raise InputError(
                f"{called} has elements of type {tensor.elem_type}, which ONNX does not know; declare its type"
            )
        text.see((d.dim_param for d in tensor.shape.dim), called)
    elif held is None and needed:
        raise InputError(f"{called} has no type; declare it")
    elif held in ("sequence_type", "optional_type"):
        _declared(getattr(kind, held).elem_type, called, needed)


def _fits(value: ValueInfoProto, tensor: TensorProto, label: str) -> None:
    """See that an initializer is what the input of its name is declared to be, as far as that is said."""
    kind = value.type.tensor_type
    declared = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if kind.elem_type not in (TensorProto.UNDEFINED, tensor.data_type):
        raise InputError(f"{label} has another data type than the input of its name; declare one of them anew")
    if kind.HasField("shape") and (
        len(declared) != len(tensor.dims) or any(d not in (None, s) for d, s in zip(declared, tensor.dims, strict=True))
    ):
        raise InputError(
            f"{label} has the shape {tuple(tensor.dims)}, and the input of its name {declared}; change one"
        )


def _twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
