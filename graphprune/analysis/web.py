"""The web: every axis of every tensor and every local dim of every node, joined by index maps.

Each use of a constant is a tensor of its own, so that exporters which merge equal constants tie nothing together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto

from graphprune import rules
from graphprune.analysis.protos import decoded
from graphprune.analysis.shapes import Witness
from graphprune.model import Model, Use, node_name, subgraphs_in
from graphprune.relation import Axes, AxisMap, IntArray, Relation, Shape, Slot


@dataclass(frozen=True, slots=True)
class Positions:
    """What the integers of an activation stand for: elements of a dim, as if that were one more axis of it.

    Attributes:
        name: the activation.
    """

    name: str


Tensor = str | Use | Positions
"""An activation by name, one use of a constant, or what an activation's values count."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One axis of one tensor, as one node sees it; or a dim of a node that is made of others.

    Attributes:
        axis: vertex of the axis.
        node: index of the node.
        map: where the elements of the axis belong.
        dims: vertices of the dims in ``map``.
    """

    axis: int
    node: int
    map: AxisMap
    dims: tuple[int, ...]


@dataclass
class Web:
    """Vertices are integers: axes first, in order of appearance, then local dims.

    Attributes:
        relations: for each node its relation; None for nodes that only make constants.
        names: for each node its name.
        axes: number of axis vertices; vertices from there on are dims.
        axis_of: first vertex of each tensor's axes.
        tensor_of: for each axis vertex its tensor and the axis' number.
        sizes: number of elements of each vertex.
        dim_start: first vertex of each node's dims.
        edges: for each vertex the edges that touch it.
        pins: axis vertices that cannot change, with the reason.
        interface: axis vertices of the graph's inputs and outputs that may change, with the tensor's name.
    """

    relations: list[Relation | None]
    names: list[str]
    axes: int = 0
    axis_of: dict[Tensor, int] = field(default_factory=dict)
    tensor_of: list[tuple[Tensor, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    dim_start: dict[int, int] = field(default_factory=dict)
    dim_of: list[tuple[int, int]] = field(default_factory=list)
    edges: list[list[Edge]] = field(default_factory=list)
    pins: dict[int, str] = field(default_factory=dict)
    interface: dict[int, str] = field(default_factory=dict)
    shapes: dict[Tensor, Shape] = field(default_factory=dict)
    tensors: dict[tuple[int, Slot], Tensor] = field(default_factory=dict)
    _lookups: dict[int, tuple[list[int], list[list[int]]]] = field(default_factory=dict, repr=False)
    _stretches: dict[int, list[int]] = field(default_factory=dict, repr=False)

    def reached(self, vertex: int, labels: IntArray) -> list[Edge]:
        """The edges of a vertex to which some of its elements lead, in their order; all where there are few.

        Args:
            vertex: the vertex.
            labels: of its elements, -1 where there is none; a dim that is joined from many axes has lookups of which
                few hold those with one.
        """
        edges = self.edges[vertex]
        if len(edges) < _MANY:
            return edges
        if vertex not in self._lookups:
            by_element: list[list[int]] = [[] for _ in range(self.sizes[vertex])]
            always = []
            for k, edge in enumerate(edges):
                lookup = edge.map.lookup
                if edge.axis == vertex or lookup is None:
                    always.append(k)
                    continue
                for element in np.unique(lookup[lookup >= 0]):
                    by_element[element].append(k)
            self._lookups[vertex] = always, by_element
        always, by_element = self._lookups[vertex]
        found = {k for element in np.flatnonzero(labels >= 0) for k in by_element[element]}
        return [edges[k] for k in sorted(found.union(always))]

    def uses(self, vertices: Iterable[int]) -> list[tuple[Use, int]]:
        """Uses of constants whose axes are among some vertices, with the axis; in order of the nodes."""
        held = (self.tensor_of[v] for v in sorted(v for v in vertices if v < self.axes))
        return [(tensor, axis) for tensor, axis in held if isinstance(tensor, Use)]

    def stretches(self, vertex: int) -> list[int]:
        """What a dim is cut into, or joined from: axes that hold some of its elements each."""
        if vertex not in self._stretches:
            cut = (
                e for e in self.edges[vertex] if e.axis != vertex and e.map.lookup is not None and len(e.map.lookup) > 1
            )
            self._stretches[vertex] = list(dict.fromkeys(e.axis for e in cut))
        return self._stretches[vertex]

    def dim(self, vertex: int) -> tuple[int, int]:
        """Node and local dim of a dim vertex."""
        return self.dim_of[vertex - self.axes]

    def axis(self, node: int, slot: Slot, axis: int) -> int | None:
        """Vertex of an axis of a node's tensor, or None where the tensor takes no part."""
        tensor = self.tensors.get((node, slot))
        return None if tensor is None else self.axis_of[tensor] + axis

    def label(self, vertex: int, model: Model) -> str:
        """A vertex in words."""
        if vertex >= self.axes:
            node, dim = self.dim(vertex)
            relation = self.relations[node]
            assert relation is not None
            return f"dim {relation.dims[dim].name!r} of node {node_name(model, node)!r}"
        tensor, axis = self.tensor_of[vertex]
        if isinstance(tensor, Positions):
            return f"what {tensor.name!r} counts"
        if isinstance(tensor, Use):
            node_proto = model.nodes[tensor.node]
            return f"{node_proto.input[tensor.input]}:{axis} at node {node_name(model, tensor.node)!r}"
        return f"{tensor}:{axis}"


_MANY = 32
"""Edges of a vertex from which on it is looked up which of them elements lead to."""


def view(model: Model, witness: Witness, index: int, counted: Mapping[str, int] | None = None) -> rules.NodeView:
    """A node as rules see it; ``counted`` has sizes of dims by the activations whose values count their elements."""
    node = model.nodes[index]
    domain = "" if node.domain == "ai.onnx" else node.domain
    return rules.NodeView(
        op=node.op_type,
        domain=domain,
        opset=model.opsets.get(domain, 1),
        attributes=decoded(node),
        inputs=tuple(witness.shape(n) if n else None for n in node.input),
        outputs=tuple(witness.shape(n) if n else None for n in node.output),
        values=tuple(witness.value(n) if n else None for n in node.input),
        static=tuple(witness.static(n) if n else None for n in node.input),
        unknown=_unknown(model, witness, node),
        counted=tuple((counted or {}).get(n, 0) for n in node.input),
    )


def _unknown(model: Model, witness: Witness, node: NodeProto) -> str:
    """The first tensor of a node that has no known shape, in words; outputs that nobody reads say nothing."""
    for side, names in (("input", node.input), ("output", node.output)):
        for k, name in enumerate(names):
            if name and witness.shape(name) is None and (side == "input" or _read(model, name)):
                return f"{side} {k}"
    return ""


def _read(model: Model, name: str) -> bool:
    return name in model.uses or name in model.read_outside


def build(model: Model, witness: Witness, allow_io: bool = False, renumbered: Set[int] = frozenset()) -> Web:
    """The web of a model at a witness.

    Args:
        model: the model.
        witness: its sizes.
        allow_io: leave those axes of the graph's inputs and outputs free that are declared with a size.
        renumbered: nodes whose numbers of elements (see ``Relation.numbers``) follow where elements go.
    """
    relations = _relations(model, witness)
    for i in renumbered:
        found = relations[i]
        relations[i] = found and found.renumbered()
    web = Web(relations, [node_name(model, i) for i in range(len(model.nodes))])
    placed: list[tuple[int, int, Axes]] = []  # node, vertex of the first axis, axes
    for i, relation in enumerate(web.relations):
        for slot, axes in relation.slots() if relation is not None else ():
            tensor = _tensor(model, i, slot)
            start = _place(web, tensor, axes, relation)
            web.tensors[(i, slot)] = tensor
            placed.append((i, start, axes))
    placed += _counted(web, model)
    web.axes = len(web.tensor_of)
    for i, relation in enumerate(web.relations):
        web.dim_start[i] = web.axes + len(web.dim_of)
        for d, dim in enumerate(relation.dims if relation is not None else ()):
            web.dim_of.append((i, d))
            web.sizes.append(dim.size)
    placed += [
        (i, web.dim_start[i] + d, (axis,))
        for i, relation in enumerate(web.relations)
        for d, axis in (relation.inner if relation is not None else ())
    ]
    web.edges = [[] for _ in web.sizes]
    for i, start, axes in placed:
        for a, axis in enumerate(axes):
            if not axis.dims:
                continue
            edge = Edge(start + a, i, axis, tuple(web.dim_start[i] + d for d in axis.dims))
            web.edges[start + a].append(edge)
            for vertex in edge.dims:
                web.edges[vertex].append(edge)
    _pin(web, model, allow_io)
    return web


def _relations(model: Model, witness: Witness) -> list[Relation | None]:
    """What every node says, in their order: a rule is told which of its inputs are positions."""
    memo: dict[object, Relation] = {}
    counted: dict[str, int] = {}
    found = []
    for index, node in enumerate(model.nodes):
        relation = ruled(model, witness, index, memo, counted)
        found.append(relation)
        for (side, place), d in relation.counts.items() if relation is not None else ():
            if side == "out":
                counted[node.output[place]] = relation.dims[d].size if relation is not None else 0
    return found


def _counted(web: Web, model: Model) -> list[tuple[int, int, Axes]]:
    """Places of what is counted: one axis for each tensor of positions; whoever else reads one pins it."""
    placed: list[tuple[int, int, Axes]] = []
    understood: set[tuple[int, int]] = set()
    for i, relation in enumerate(web.relations):
        for slot, d in relation.counts.items() if relation is not None else ():
            node = model.nodes[i]
            name = (node.input if slot[0] == "in" else node.output)[slot[1]]
            axes = (AxisMap((d,)),)
            placed.append((i, _place(web, Positions(name), axes, relation), axes))
            if slot[0] == "in":
                understood.add((i, slot[1]))
    for tensor in [t for t in web.axis_of if isinstance(t, Positions)]:
        why = [
            f"node {web.names[use.node]!r} ({model.nodes[use.node].op_type}) computes with positions on it"
            for use in model.uses.get(tensor.name, ())
            if (use.node, use.input) not in understood
        ]
        why += [f"output {tensor.name!r} of the graph holds positions on it"] * (tensor.name in model.output_names)
        why += [
            f"the subgraph of node {web.names[i]!r} reads positions on it"
            for i, names in model.captured.items()
            if tensor.name in names
        ]
        if why:
            web.pins[web.axis_of[tensor]] = why[0]
    return placed


def ruled(
    model: Model,
    witness: Witness,
    index: int,
    memo: dict[object, Relation],
    counted: Mapping[str, int] | None = None,
) -> Relation | None:
    """The relation of a node; layers that repeat share one, since a rule sees nothing but its view of the node."""
    node = model.nodes[index]
    if any(o in model.sources for o in node.output) or (
        node.op_type == "Identity" and model.root(node.output[0]) in model.sources
    ):
        return None
    seen = view(model, witness, index, counted)
    values = tuple(None if v is None else (v.shape, v.tobytes()) for v in seen.values + seen.static)
    key = (model.signatures[index], seen.inputs, seen.outputs, values, seen.unknown, seen.counted)
    if key not in memo:
        memo[key] = rules.rule(seen, f"{model.name}: node {node_name(model, index)!r}")
    return memo[key]


def _tensor(model: Model, node: int, slot: Slot) -> Tensor:
    side, place = slot
    if side == "out":
        return model.nodes[node].output[place]
    name = model.nodes[node].input[place]
    return Use(node, place) if model.root(name) in model.sources else name


def _place(web: Web, tensor: Tensor, axes: Axes, relation: Relation | None) -> int:
    if tensor not in web.axis_of:
        assert relation is not None
        web.axis_of[tensor] = len(web.tensor_of)
        shape = []
        for a, axis in enumerate(axes):
            web.tensor_of.append((tensor, a))
            size = 1
            for d in axis.dims:
                size *= relation.dims[d].size
            shape.append(size if axis.lookup is None else len(axis.lookup))
        web.sizes += shape
        web.shapes[tensor] = tuple(shape)
    return web.axis_of[tensor]


def _pin(web: Web, model: Model, allow_io: bool) -> None:
    fixed: list[tuple[str, str]] = []
    for value, role in [(v, "input") for v in model.inputs] + [(v, "output") for v in model.graph.output]:
        start = web.axis_of.get(value.name)
        declared = value.type.tensor_type.shape.dim
        for a in range(len(web.shapes[value.name]) if start is not None else 0):
            if allow_io and a < len(declared) and declared[a].dim_value > 0:
                web.interface[web.axis_of[value.name] + a] = value.name
            else:
                web.pins.setdefault(web.axis_of[value.name] + a, f"it is the {role} {value.name!r} of the graph")
    for index, names in model.captured.items():
        why = f"it is read inside the subgraph of node {node_name(model, index)!r} ({model.nodes[index].op_type})"
        fixed += [(name, why) for name in names]
    for index, node in enumerate(model.nodes):
        if subgraphs_in(node):
            why = f"node {node_name(model, index)!r} ({node.op_type}) holds a subgraph"
            fixed += [(name, why) for name in [*node.input, *node.output] if name]
    for index, relation in enumerate(web.relations):
        for k, name in enumerate(model.nodes[index].input if relation is not None else ()):
            if name in web.axis_of and (index, ("in", k)) not in web.tensors:
                why = f"node {node_name(model, index)!r} ({model.nodes[index].op_type}) reads it as sizes or positions"
                fixed.append((name, why))
        for k, name in enumerate(model.nodes[index].output if relation is not None else ()):
            if name in web.axis_of and (index, ("out", k)) not in web.tensors:
                label = f"{node_name(model, index)!r} ({model.nodes[index].op_type})"
                fixed.append((name, f"node {label} makes it, and its rule does not say of what"))
    for name, why in fixed:
        start = web.axis_of.get(name)
        if start is not None:
            for a in range(len(web.shapes[name])):
                web.pins.setdefault(start + a, why)
