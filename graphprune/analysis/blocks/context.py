"""What the search for blocks shares: the data graph, what was found so far, and questions about tensors."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.analysis import Analysis
from graphprune.analysis.blocks.block import Block, Fixed
from graphprune.analysis.blocks.states import carried
from graphprune.analysis.dataflow import DataFlow

Key = tuple[tuple[int, ...] | None, tuple[int, ...] | None, int | None]


class Context:
    """The state of a search.

    Attributes:
        found: blocks so far.
        fixed: what looks like a block and is none, by the tensor that would have to be replaced.
        replaced: the block for each pair of tensors, one of which stands for the other.
        rows: for blocks that are made of others in a row, these, each by its pair of tensors.
        exits: operands of sums with products behind them, whether they can be taken out or not.
    """

    def __init__(self, analysis: Analysis, allow_io: bool) -> None:
        self.analysis = analysis
        self.states = carried(analysis) if allow_io else {}
        self.flow = DataFlow(analysis, self.states)
        self.found: list[Block] = []
        self.fixed: dict[str, Fixed] = {}
        self.replaced: dict[tuple[str, str], Block] = {}
        self.exits: set[str] = set()
        self.rows: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def key(self, tensor: str) -> Key:
        """What two tensors must have in common for one to stand for the other."""
        return (*self.flow.shape(tensor), self.analysis.witness.first.types.get(tensor))

    def known(self, tensor: str) -> bool:
        """Whether a tensor has a shape, and is in the main graph: what bodies of control flow hold stays."""
        layout, maker = self.analysis.model.layout, self.flow.maker(tensor)
        inside = layout is not None and maker is not None and layout.of(self.analysis.model.nodes[maker])
        return self.flow.shape(tensor)[0] is not None and not inside

    def weight(self, nodes: dict[int, None]) -> int:
        """Multiply-accumulates of some nodes: none where there is no product among them."""
        return sum(self.flow.macs[n] for n in nodes)

    def add(
        self, kind: str, output: str, by: str, exit: str, nodes: dict[int, None], parts: Sequence[Block] = ()
    ) -> Block:
        """A block, which from now on stands for a pair of tensors; the first that does is kept."""
        block = Block(
            f"{kind}:{output}",
            kind,
            output,
            by,
            exit,
            tuple(sorted(nodes)),
            self.flow.parameters(nodes),
            self.weight(nodes),
            interface=self._interface(nodes),
        )
        self.replaced.setdefault(block.pair, block)
        if parts:
            self.rows[block.pair] = [p.pair for p in parts]
        return block

    def _interface(self, nodes: dict[int, None]) -> tuple[str, ...]:
        made = [o for n in sorted(nodes) for o in self.flow.made(n) if o in self.states]
        return tuple(name for output in made for name in (self.states[output], output))

    def passes(self, start: str, end: str) -> bool:
        """Whether one tensor makes another without a product."""
        return self.flow.leads(start, end, lambda n: not self.flow.macs[n])

    def leaks(self, entry: str, nodes: dict[int, None]) -> bool:
        """Whether something between entry and exit stays, because it is used elsewhere."""
        return self.leak(entry, self.flow.frontier(nodes)) is not None

    def leak(self, entry: str, frontier: list[str]) -> str | None:
        """What is read of a part that is made of its entry and yet stays, because it is used elsewhere."""
        first = self.flow.place[entry]
        made = (t for t in frontier if t != entry and self.flow.place[t] > first)
        return next((t for t in made if self.flow.leads(entry, t)), None)
