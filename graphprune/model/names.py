"""Names of tensors that are added to a model. What a name looks like says nothing of what it names."""

from __future__ import annotations

from onnx import GraphProto


def of(graph: GraphProto) -> set[str]:
    """Every name that a tensor has in a graph, or in a graph within it."""
    found = {v.name for v in [*graph.input, *graph.output, *graph.value_info]} | {t.name for t in graph.initializer}
    for node in graph.node:
        found.update(node.input, node.output)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs:
                found |= of(inner)
    return found


def fresh(name: str, taken: set[str]) -> str:
    """A name, or the first of ``name#2``, ``name#3`` and so on, that nothing has yet; it is taken from then on."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}#{number}", number + 1
    taken.add(found)
    return found
