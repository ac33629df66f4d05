"""Cutting a model into pieces that can be timed alone.

A piece is a product with what lies behind it, as runtimes fuse them: nodes without products of their own that read
nothing but the piece, constants, and tensors that come in from elsewhere (the other side of a residual sum), as long
as one tensor leaves in the end and no group comes in that the piece had no part of. So activations, norms and sums
cost what they cost behind the product, and not a pass over memory of their own. Every other node is a piece by itself.
No operator is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cached_property

from graphprune.analysis import Analysis
from graphprune.model import node_name, subgraphs_in
from graphprune.rules.control import DOMAIN

_LONGEST = 32
"""Nodes of a piece: a norm or an activation that is written in parts has about ten."""


@dataclass(frozen=True)
class Piece:
    """Nodes that are timed as one.

    Attributes:
        nodes: indices, in the order of the model.
        groups: places in ``Analysis.groups`` of those that touch it, ascending.
    """

    nodes: tuple[int, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class LeftOut:
    """A node that is not timed.

    Attributes:
        node: its first output.
        reason: why not.
    """

    node: str
    reason: str


def cut(analysis: Analysis) -> tuple[list[Piece], list[LeftOut]]:
    """All pieces of a model, in the order of their first nodes, and the nodes that cannot be timed alone."""
    cutter = _Cutter(analysis)
    pieces = cutter.pieces()
    return pieces, cutter.left_out


class _Cutter:
    def __init__(self, analysis: Analysis) -> None:
        self.analysis, self.model, self.web = analysis, analysis.model, analysis.web
        self.left_out: list[LeftOut] = []
        self.taken: set[int] = set()
        self.outputs = set(self.model.output_names) | {n for names in self.model.captured.values() for n in names}

    @cached_property
    def groups(self) -> dict[int, set[int]]:
        """By node the groups that touch one of its axes or dims."""
        found: dict[int, set[int]] = {}
        for g, group in enumerate(self.analysis.groups):
            for vertex in group.labels:
                for edge in self.web.edges[vertex]:
                    found.setdefault(edge.node, set()).add(g)
        return found

    def pieces(self) -> list[Piece]:
        """All pieces; of two products that one sum joins, the later has the sum."""
        timed = {i for i in range(len(self.model.nodes)) if self._timed(i)}
        chains: list[list[int]] = []
        for index in sorted(timed, reverse=True):
            relation = self.web.relations[index]
            if relation is not None and relation.macs:
                chains.append(self._chain(index, timed))
                self.taken.update(chains[-1])
        chains += [[index] for index in timed - self.taken]
        return [Piece(tuple(c), tuple(sorted(self._of(c)))) for c in sorted(chains)]

    def _of(self, nodes: Iterable[int]) -> set[int]:
        return {g for n in nodes for g in self.groups.get(n, ())}

    def computes(self, name: str) -> bool:
        """Whether a tensor is data, and neither a constant nor a size."""
        return bool(name) and name not in self.model.constant_names and self.analysis.witness.value(name) is None

    def _timed(self, index: int) -> bool:
        node = self.model.nodes[index]
        if not any(map(self.computes, node.input)) or not any(map(self.computes, node.output)):
            return False
        reason = ""
        layout = self.model.layout
        if node.domain == DOMAIN or subgraphs_in(node):
            reason = f"{node.op_type} holds a subgraph"
        elif layout is not None and layout.of(node):
            reason = "it stands in a body of control flow, which runs as often as the data say"
        if reason:
            label = next((o for o in node.output if o), node_name(self.model, index))
            self.left_out.append(LeftOut(label, reason))
        return not reason

    def _chain(self, start: int, timed: Set[int]) -> list[int]:
        """A product and what belongs to it: the longest row of nodes that ends in a single tensor."""
        groups = self._of([start])
        chain, closed = [start], [start]
        while len(chain) < _LONGEST:
            tensors = {o for n in chain for o in self.model.nodes[n].output if o}
            readers = {n for t in tensors for n in self._readers(t)} - set(chain)
            index = min(readers, default=-1)
            if index < 0 or not self._joins(index, timed, groups) or tensors & self.outputs:
                break
            chain.append(index)
            if self._closes(chain):
                closed = list(chain)
        return closed

    def _joins(self, index: int, timed: Set[int], groups: Set[int]) -> bool:
        relation = self.web.relations[index]
        free = index in timed and index not in self.taken
        return free and relation is not None and not relation.macs and self._of([index]) <= groups

    def _closes(self, chain: list[int]) -> bool:
        """Whether all that leaves is what the last node makes."""
        own = set(chain)
        inside = [o for n in chain[:-1] for o in self.model.nodes[n].output if o]
        return all(n in own for t in inside for n in self._readers(t))

    def _readers(self, name: str) -> list[int]:
        """Nodes that read a tensor as data: what asks for its shape alone runs before, where shapes are known."""
        readers = (u.node for u in self.model.uses.get(name, ()))
        return [n for n in readers if any(map(self.computes, self.model.nodes[n].output))]
