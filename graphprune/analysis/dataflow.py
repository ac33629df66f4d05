"""The data graph of a model: activations as vertices, joined where a node makes one of another.

Constants and what is computed of them are no part of it. One virtual vertex stands behind everything that leaves the
model, so that post-dominators tell what all data must pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from heapq import heappop, heappush
from math import prod

import networkx as nx

from graphprune.analysis import Analysis, cost
from graphprune.model import Use
from graphprune.relation import Shape

SINK = ""
"""The virtual vertex; no tensor has an empty name."""


class DataFlow:
    """Activations of a model, who makes and who reads them.

    Args:
        analysis: of the model.
        states: outputs of the graph that do not count as leaving it, each with the input whose state it gives back.
    """

    def __init__(self, analysis: Analysis, states: Mapping[str, str] | None = None) -> None:
        self.analysis = analysis
        model = analysis.model
        self.outputs = [o for o in model.output_names if o not in (states or {})]
        self.passing = frozenset((states or {}).values())
        self.reads: list[list[str]] = []
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(model.nodes):
            names = [*node.input, *model.captured.get(index, ())]
            fed = list(dict.fromkeys(n for n in names if n and n not in model.constant_names))
            self.reads.append(fed)
            for name in fed:
                self.readers.setdefault(name, []).append(index)

    def made(self, node: int) -> list[str]:
        """Activations that a node makes."""
        model = self.analysis.model
        return [o for o in model.nodes[node].output if o and o not in model.constant_names]

    def maker(self, tensor: str) -> int | None:
        """The node that makes an activation, None for an input of the graph."""
        return self.analysis.model.producer.get(tensor)

    @cached_property
    def tensors(self) -> list[str]:
        """All activations in topological order: inputs of the graph first."""
        names = [i.name for i in self.analysis.model.inputs]
        return names + [o for node in range(len(self.reads)) for o in self.made(node)]

    @cached_property
    def place(self) -> dict[str, int]:
        """Position of each activation in :attr:`tensors`."""
        return {name: i for i, name in enumerate(self.tensors)}

    def measures(self, node: int) -> bool:
        """Whether a node takes nothing of data but its size."""
        made = self.made(node)
        return len(made) == 1 and self.size(made[0]) and not all(map(self.size, self.reads[node]))

    @cached_property
    def above(self) -> dict[str, str]:
        """The immediate post-dominator of each activation that leads anywhere: what all that is made of it passes."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_node(SINK)
        for node, names in enumerate(self.reads):
            if not self.measures(node):
                graph.add_edges_from((out, name) for out in self.made(node) for name in names)
        graph.add_edges_from((SINK, name) for name in self.outputs)
        found: dict[str, str] = nx.immediate_dominators(graph, SINK)
        return {t: up for t, up in found.items() if t != SINK}

    def climb(self, tensor: str) -> Iterator[str]:
        """A tensor and its post-dominators, nearest first."""
        while tensor != SINK and tensor in self.above:
            yield tensor
            tensor = self.above[tensor]

    @cached_property
    def level(self) -> dict[str, int]:
        """How many post-dominators each activation has."""
        found = {SINK: 0}
        for tensor in self.above:
            path = []
            while tensor not in found:
                path.append(tensor)
                tensor = self.above[tensor]
            for k, passed in enumerate(reversed(path)):
                found[passed] = found[tensor] + k + 1
        return found

    def meet(self, tensors: Iterable[str]) -> str:
        """The nearest activation that everything made of some others passes; they themselves count."""
        first, *rest = tensors
        for other in rest:
            while first != other:
                if self.level[first] >= self.level[other]:
                    first = self.above[first]
                else:
                    other = self.above[other]
        return first

    def gone(self, tensor: str, stop: str | None = None, like: str | None = None) -> dict[int, None]:
        """Nodes that nothing needs once a tensor is not read any more, last first.

        Args:
            tensor: the tensor.
            stop: a tensor that stays, whatever reads it.
            like: a tensor that stays: what measures one that goes can measure it instead (see :meth:`measured_off`).
        """
        start = self.maker(tensor)
        if start is None or any(self.readers.get(o) or o in self.outputs_set for o in self.made(start) if o != tensor):
            return {}
        found: dict[int, None] = {}
        pending = [-start]
        queued = {start}
        while pending:  # from the last node to the first, so that all readers of a tensor are judged before its maker
            node = -heappop(pending)
            if node != start and not all(self._unread(o, found, like) for o in self.made(node)):
                continue
            found[node] = None
            for name in self.reads[node]:
                maker = self.maker(name)
                if name != stop and maker is not None and maker not in queued:
                    queued.add(maker)
                    heappush(pending, -maker)
        return found

    def _unread(self, tensor: str, gone: dict[int, None], like: str | None) -> bool:
        if tensor in self.outputs_set:
            return False
        return all(r in gone or self._does_without(r, gone, like) for r in self.readers.get(tensor, ()))

    def _does_without(self, node: int, gone: dict[int, None], like: str | None) -> bool:
        """Whether a node can measure something else, or is only there for such nodes, and so goes too."""
        if like is None:
            return False
        if self.measures(node):
            return self.measured_off(node, [like, *self.lasting]) is not None
        idle = not any(o in self.above for o in self.made(node)) and all(
            self._unread(o, gone, like) for o in self.made(node)
        )
        if idle:
            gone[node] = None
        return idle

    def measured_off(self, node: int, tensors: Iterable[str]) -> list[tuple[str, int]] | None:
        """How to tell what a node measures from the sizes of other tensors.

        Returns:
            For each entry of what it makes a tensor and its axis of that size, or no tensor and a fixed size; None
            where an entry is neither.
        """
        (out,) = self.made(node)
        first, second = self.analysis.witness.first, self.analysis.witness.second
        one, two = first.values[out], second.values.get(out, first.values[out])
        if one.shape != two.shape or one.ndim > 1:
            return None
        # what is made later may need the very size that is to be told
        others = [t for t in tensors if self.place[t] < self.place[out]]
        found: list[tuple[str, int]] = []
        for pair in zip(one.reshape(-1).tolist(), two.reshape(-1).tolist(), strict=True):
            place = ("", pair[0]) if pair[0] == pair[1] else self._place_of_size(pair, others)
            if place is None:
                return None
            found.append(place)
        return found

    def _place_of_size(self, pair: tuple[int, int], tensors: Iterable[str]) -> tuple[str, int] | None:
        """A tensor, and an axis of it, that has a size at the first witness and another at the second."""
        for tensor in tensors:
            sizes = list(zip(*(shape or () for shape in self.shape(tensor)), strict=False))
            if pair in sizes:
                return tensor, sizes.index(pair)
        return None

    @cached_property
    def lasting(self) -> list[str]:
        """Inputs of the graph that stay whatever goes."""
        return [i.name for i in self.analysis.model.inputs if i.name not in self.passing]

    def shape(self, tensor: str) -> tuple[Shape | None, Shape | None]:
        """Shape of an activation at both witnesses."""
        witness = self.analysis.witness
        return witness.first.shapes.get(tensor), witness.second.shapes.get(tensor)

    @cached_property
    def outputs_set(self) -> frozenset[str]:
        """Outputs of the graph that count."""
        return frozenset(self.outputs)

    def between(self, entry: str, nodes: dict[int, None]) -> dict[int, None]:
        """Those of a set of nodes that data reaches from a tensor within the set."""
        reached = {entry}
        found: dict[int, None] = {}
        for node in sorted(nodes):
            if any(name in reached for name in self.reads[node]):
                found[node] = None
                reached.update(o for o in self.made(node) if not self.size(o))
        return found

    def frontier(self, nodes: dict[int, None]) -> list[str]:
        """Activations that a set of nodes reads and does not make."""
        return list(dict.fromkeys(n for node in nodes for n in self.reads[node] if self.maker(n) not in nodes))

    def size(self, tensor: str) -> bool:
        """Whether an activation holds sizes or what follows from them, and no data."""
        return tensor in self.analysis.witness.first.values

    def leads(self, start: str, end: str, through: Callable[[int], bool] = lambda _: True) -> bool:
        """Whether data finds a way from one activation to another, by nodes of some kind only."""
        first = self.place[start]
        seen, pending = {end}, [end]
        while pending:
            tensor = pending.pop()
            if tensor == start:
                return True
            node = self.maker(tensor)
            if node is None or not through(node):
                continue
            for name in self.reads[node]:
                if name not in seen and self.place[name] >= first and not self.size(name):
                    seen.add(name)
                    pending.append(name)
        return False

    @cached_property
    def macs(self) -> list[int]:
        """Multiply-accumulates of each node at the witness."""
        net = self.analysis.web
        return [
            sum(prod(relation.dims[d].size for d in product) for product in relation.macs) if relation else 0
            for relation in net.relations
        ]

    @cached_property
    def weights(self) -> dict[str, tuple[int, frozenset[int]]]:
        """For each constant its elements that count as parameters, and the nodes that it reaches by constants alone."""
        model = self.analysis.model
        found = {}
        for name, source in model.sources.items():
            size = cost.elements(source)
            if size:
                found[name] = (size, frozenset(self._users(name)))
        return found

    def _users(self, name: str) -> set[int]:
        model = self.analysis.model
        users: set[int] = set()
        pending, seen = [name], {name}
        while pending:
            for use in model.uses.get(pending.pop(), ()):
                constant = [o for o in model.nodes[use.node].output if o in model.constant_names]
                if not constant:
                    users.add(use.node)
                fresh = [o for o in constant if o not in seen]
                seen.update(fresh)
                pending += fresh
        return users

    @cached_property
    def weights_of(self) -> dict[int, list[str]]:
        """Constants that reach each node."""
        found: dict[int, list[str]] = {}
        for name, (_, users) in self.weights.items():
            for node in users:
                found.setdefault(node, []).append(name)
        return found

    def parameters(self, nodes: dict[int, None]) -> int:
        """Elements of constants that only these nodes use."""
        names = dict.fromkeys(name for node in nodes for name in self.weights_of.get(node, ()))
        return sum(size for size, users in (self.weights[n] for n in names) if users <= nodes.keys())

    def constant_inputs(self, node: int) -> tuple[tuple[int, ...] | None, ...]:
        """For each input of a node the shape of the constant there, None where it is an activation."""
        net, model = self.analysis.web, self.analysis.model
        return tuple(
            (net.shapes.get(Use(node, k)) or self.analysis.witness.shape(name) or ())
            if name in model.constant_names
            else None
            for k, name in enumerate(model.nodes[node].input)
        )
