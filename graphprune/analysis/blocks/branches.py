"""Branches: what enters one operand of a sum, and can be left out of it."""

from __future__ import annotations

from graphprune.analysis.blocks.block import Fixed
from graphprune.analysis.blocks.context import Context
from graphprune.model import node_name


class Branches:
    """The search for branches; what it finds is in the context."""

    def __init__(self, context: Context) -> None:
        self.context, self.flow, self.analysis = context, context.flow, context.analysis

    def run(self) -> None:
        """Look at every sum of two activations, from both sides."""
        for node, relation in enumerate(self.analysis.web.relations):
            if relation is None or not relation.joint or len(self.flow.reads[node]) != 2:
                continue
            output = self.analysis.model.nodes[node].output[0]
            pair = self.flow.reads[node]
            if len(self.analysis.model.nodes[node].input) != 2 or not self.context.known(output):
                continue
            for exit, by in (pair, pair[::-1]):
                self._branch(node, output, exit, by)

    def _branch(self, node: int, output: str, exit: str, by: str) -> None:
        if self.flow.leads(exit, by):  # what the other operand is made of is the skip
            return
        nodes = self.flow.gone(exit, like=by)
        if not self.context.weight(nodes):
            return
        key = self.context.key(output)
        frontier = self.flow.frontier(nodes)
        behind = [t for t in frontier if self.context.weight(self.flow.between(t, nodes))]
        elsewhere = [exit] if self.flow.readers[exit] != [node] or exit in self.flow.outputs_set else []
        if self.context.key(exit) == key == self.context.key(by):
            self.context.exits.add(exit)
            entries = [t for t in behind if self.context.key(t) == key]
            leaks = [self.context.leak(t, frontier) for t in entries]
            if not elsewhere and None in leaks:
                self.context.found.append(self.context.add("branch", output, by, exit, {**nodes, node: None}))
                return
            elsewhere += [t for t in leaks if t is not None]
        self._refuse(node, by, nodes, behind, elsewhere)

    def _refuse(self, node: int, by: str, nodes: dict[int, None], behind: list[str], elsewhere: list[str]) -> None:
        """Keep why something that looks like a branch is none; what does not look like one is not worth a word."""
        shapes = self.analysis.witness.first.shapes
        output = self.analysis.model.nodes[node].output[0]
        whole = shapes.get(output)
        alike = [t for t in behind if whole and len(shapes.get(t, ())) == len(whole)]
        if elsewhere:
            if not any(self.context.passes(t, by) or self.context.passes(by, t) for t in alike):
                return  # what is added to a stream that is read elsewhere: no skip
            readers = [r for r in self.flow.readers.get(elsewhere[0], ()) if r != node and r not in nodes]
            where = f"node {node_name(self.analysis.model, readers[0])!r} reads" if readers else "the graph gives out"
            reason = f"{where} {elsewhere[0]!r} as well, which is inside"
        else:
            first = next((t for t in alike if self.flow.leads(t, by)), None)
            if first is None or whole is None:
                return
            sizes = ["x".join(map(str, shape)) for shape in (shapes[first], whole)]
            reason = f"it leads from {first!r} of {sizes[0]} to {sizes[1]}: a projection would be needed"
        if output not in self.context.fixed or len(self.context.fixed[output].nodes) < len(nodes):
            self.context.fixed[output] = Fixed(reason, output=output, nodes=tuple(sorted(nodes)))
