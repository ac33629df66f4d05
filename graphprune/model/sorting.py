"""Nodes in an order in which they can run."""

from __future__ import annotations

import networkx as nx
from onnx import NodeProto

from graphprune.errors import InputError
from graphprune.model.bodies import free_names, subgraphs


def in_order(nodes: list[NodeProto], name: str) -> list[NodeProto]:
    """Nodes in topological order, as near as possible to the given one: some converters append what they insert."""
    reads = [{*node.input, *(n for g in subgraphs(node) for n in free_names(g))} for node in nodes]
    producer = {out: i for i, node in enumerate(nodes) for out in node.output if out}
    late = any(producer.get(name, -1) >= i for i, names in enumerate(reads) for name in names)
    if not late:
        return nodes
    order: nx.DiGraph[int] = nx.DiGraph()
    order.add_nodes_from(range(len(nodes)))
    order.add_edges_from((producer[n], i) for i, names in enumerate(reads) for n in sorted(names) if n in producer)
    try:
        return [nodes[i] for i in nx.lexicographical_topological_sort(order, key=lambda i: i)]
    except nx.NetworkXUnfeasible:
        raise InputError(f"{name}: its nodes read each other in a circle") from None
