"""Regions of a graph: layers by their order, heads, and what lies before or behind a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import networkx as nx

from graphprune.analysis import Analysis, Group
from graphprune.analysis.dataflow import DataFlow
from graphprune.errors import InputError
from graphprune.model import naming, node_name

Why = Callable[[Group], str | None]
"""Why a group is left out, None where it is not."""
_Beside = Callable[[DataFlow, set[int], str], Iterator[int]]
"""The nodes next to some, or to a tensor, on one side."""


def layers(analysis: Analysis) -> dict[int, list[int]]:
    """Layers with weights: nodes that sum over products with a constant, with the vertices of the dims that these have.

    They come in the order of the graph, in which every node stands behind those that it reads.
    """
    net, model = analysis.web, analysis.model
    found = {}
    for node, relation in enumerate(net.relations):
        if relation is None or not relation.macs:
            continue
        multiplied = {d for product in relation.macs for d in product}
        for k, axes in enumerate(relation.inputs):
            if axes is None or model.nodes[node].input[k] not in model.constant_names:
                continue
            dims = {d for axis in axes for d in axis.dims}
            if len(axes) > 1 and dims & multiplied:
                found[node] = [net.dim_start[node] + d for d in sorted(dims)]
                break
    return found


def kept(analysis: Analysis, first: int, last: int) -> Why:
    """Why groups are left out that cut one of the first or of the last layers."""
    if not first and not last:
        return lambda group: None
    all_ = layers(analysis)
    order = list(all_)
    named = {
        **(dict.fromkeys(order[-last:], f"--keep-last {last}") if last else {}),
        **dict.fromkeys(order[:first], f"--keep-first {first}"),
    }

    def why(group: Group) -> str | None:
        node = next((node for node in order if node in named and not group.labels.keys().isdisjoint(all_[node])), None)
        return None if node is None else f"{named[node]}: it cuts the layer {node_name(analysis.model, node)!r}"

    return why


def within_heads(analysis: Analysis, keep: bool) -> Why:
    """Why groups are left out that lie in a head: layers that lead to one alone of several last layers.

    Last is a layer of which something could be removed and behind which there is no other such layer: what decodes
    with constants is none. What leads to several of them (a backbone, a neck) is no head, and what it gives to one may
    become narrower.

    Raises:
        InputError: there is one last layer, so that heads cannot be told from the rest.
    """
    if not keep:
        return lambda group: None
    inside, last = _heads(analysis)
    if last < 2:
        raise InputError(
            f"{analysis.model.name}: --keep-heads keeps what leads to one alone of several last layers, and here all "
            "leads to one; leave it out, or say --keep-last"
        )

    def why(group: Group) -> str | None:
        users = [node for use, _ in analysis.weights(group) for node in _users(analysis, use.node)]
        if not users or not all(node in inside for node in users):
            return None
        return f"--keep-heads: it lies in a head, at {node_name(analysis.model, users[0])!r}"

    return why


def _heads(analysis: Analysis) -> tuple[set[int], int]:
    """The layers that lead to one last layer alone, and how many last layers there are."""
    plain = (g for g in analysis.groups if not g.statistical and (g.picked or not g.choices))
    removable = {label for group in plain for label in group.labels}
    cut = {node for node, vertices in layers(analysis).items() if not removable.isdisjoint(vertices)}
    graph, ends = _made_of(analysis), dict[int, int]()  # by node the last layers that it leads to, a bit each
    count = 0
    for node in reversed(list(nx.topological_sort(graph))):
        ends[node] = 0
        for reader in graph.successors(node):
            ends[node] |= ends[reader]
        if node in cut and not ends[node]:
            ends[node], count = 1 << count, count + 1
    return {node for node in cut if ends[node].bit_count() == 1}, count


def between(analysis: Analysis, before: Sequence[str], after: Sequence[str]) -> Why:
    """Why groups are left out that have weights elsewhere than before some tensors and behind others.

    Args:
        analysis: of the model.
        before: names of tensors, nodes or modules; what leads to one of them lies before. Of a node or a module that is
            what it reads from elsewhere.
        after: names of tensors, nodes or modules; what is made of one of them lies behind. Of a node or a module that
            is what it makes for others.

    Raises:
        InputError: there is no tensor and no node of a name.
    """
    if not before and not after:
        return lambda group: None
    flow = DataFlow(analysis)
    graph = _made_of(analysis)
    leading = {node for name in before for node in _reached(flow, name, _makers, graph.reverse())}
    behind = {node for name in after for node in _reached(flow, name, _readers, graph)}

    def why(group: Group) -> str | None:
        for use, _ in analysis.weights(group):
            for node in _users(analysis, use.node):
                if before and node not in leading:
                    return f"node {node_name(analysis.model, node)!r} is not before {' or '.join(map(repr, before))}"
                if after and node not in behind:
                    return f"node {node_name(analysis.model, node)!r} is not after {' or '.join(map(repr, after))}"
        return None

    return why


def _made_of(analysis: Analysis) -> nx.DiGraph[int]:
    """Nodes, joined where one reads what another makes; constants count too."""
    model = analysis.model
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(model.nodes)))
    for index, node in enumerate(model.nodes):
        names = (*node.input, *model.captured.get(index, ()))
        graph.add_edges_from((model.producer[name], index) for name in names if name in model.producer)
    return graph


def _reached(flow: DataFlow, name: str, beside: _Beside, graph: nx.DiGraph[int]) -> set[int]:
    """Nodes on one side of a tensor, a node or a module, which itself is on neither."""
    own = set(_nodes(flow, name))
    next_ = {node for node in beside(flow, own, name) if node not in own}
    return {*next_, *(other for node in next_ for other in nx.descendants(graph, node))} - own


def _makers(flow: DataFlow, own: set[int], name: str) -> Iterator[int]:
    """The nodes whose making leads to a tensor, or to what some nodes read."""
    producer = flow.analysis.model.producer
    names = [n for node in own for n in flow.reads[node]] if own else [name]
    return (producer[n] for n in names if n in producer)


def _readers(flow: DataFlow, own: set[int], name: str) -> Iterator[int]:
    """The nodes that read a tensor, or what some nodes make."""
    names = [n for node in own for n in flow.made(node)] if own else [name]
    return (reader for n in names for reader in flow.readers.get(n, ()))


def _nodes(flow: DataFlow, name: str) -> list[int]:
    """The node of a name, or those of the module of that name; none where it is a tensor's."""
    model = flow.analysis.model
    if name in flow.place:
        return []
    names = [node_name(model, index) for index in range(len(model.nodes))]
    found = [index for index, own in enumerate(names) if own == name]
    found = found or [index for index, own in enumerate(names) if naming.in_module(own, name)]
    if not found:
        hint = naming.near(name, [*flow.tensors, *names])
        raise InputError(f"{model.name}: there is no tensor, no node and no module {name!r}{hint}")
    return found


def _users(analysis: Analysis, node: int) -> list[int]:
    """The node itself; where it makes constants alone, those that read these on the way to data."""
    model = analysis.model
    outputs = [name for name in model.nodes[node].output if name]
    if not outputs or any(name not in model.constant_names for name in outputs):
        return [node]
    return [user for name in outputs for use in model.uses.get(name, ()) for user in _users(analysis, use.node)]
