"""The graphs that nodes hold, and what these read from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import AttributeProto, GraphProto, NodeProto


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs held by a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def subgraphs_in(node: NodeProto) -> bool:
    """Whether a node holds a graph."""
    return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)


def signature(node: NodeProto) -> bytes:
    """What a node does, whatever it reads: operator, which outputs it has, and attributes."""
    attributes = (a.SerializeToString(deterministic=True) for a in node.attribute)
    return b"\0".join((node.domain.encode(), node.op_type.encode(), bytes(map(bool, node.output)), *attributes))


def every(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs that they hold."""
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(body.node for body in subgraphs(node))


def free_names(graph: GraphProto) -> set[str]:
    """Names that a subgraph reads and does not define."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    free: set[str] = set()
    for node in graph.node:
        inner = set(node.input) | {name for g in subgraphs(node) for name in free_names(g)}
        free |= {name for name in inner if name and name not in own}
        own |= set(node.output)
    return free | {o.name for o in graph.output if o.name not in own}


def reread(node: NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and what its bodies capture, read other tensors."""
    for k, name in enumerate(node.input):
        node.input[k] = names.get(name, name)
    for graph in subgraphs(node):
        captured = {n: names[n] for n in free_names(graph) if n in names}
        for inner in graph.node:
            reread(inner, captured)
        for value in graph.output:
            value.name = captured.get(value.name, value.name)
