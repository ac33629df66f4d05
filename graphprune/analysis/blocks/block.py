"""What a block is."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphprune.analysis.reasons import Reason


@dataclass(frozen=True)
class Block:
    """A part of a model that can be taken out.

    Attributes:
        id: ``branch:`` or ``layer:`` and the tensor that is replaced, with a number where that is not unique.
        kind: ``branch`` or ``layer``.
        output: the tensor that is replaced.
        by: the tensor that replaces it.
        exit: the last tensor of the part: for a branch the operand of the sum.
        nodes: indices of the nodes that go, ascending.
        parameters: elements of constants that go with them.
        macs: their multiply-accumulates at the witness.
        depth: in how many other blocks it lies.
        like: ids of all blocks with the same products, this one among them.
        parts: ids of the blocks in a row that it is made of.
        interface: inputs and outputs of the graph that go with it.
    """

    id: str
    kind: str
    output: str
    by: str
    exit: str
    nodes: tuple[int, ...]
    parameters: int
    macs: int
    depth: int = 0
    like: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    interface: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, str]:
        """The tensor that is replaced, and what replaces it: no two blocks have the same."""
        return self.output, self.by


@dataclass(frozen=True)
class Fixed(Reason):
    """Why what looks like a block cannot be taken out.

    Attributes:
        output: the tensor that would have to be replaced.
        nodes: indices of the nodes inside, ascending.
    """

    output: str = field(kw_only=True)
    nodes: tuple[int, ...] = field(kw_only=True)


@dataclass
class Blocks:
    """All blocks of a model, in order of what they replace, and what stays."""

    blocks: list[Block] = field(default_factory=list)
    fixed: list[Fixed] = field(default_factory=list)

    def get(self, id: str) -> Block | None:
        """The block of this id."""
        return next((b for b in self.blocks if b.id == id), None)

    def holding(self, node: int) -> list[Block]:
        """Blocks that a node lies in, smallest first."""
        return sorted((b for b in self.blocks if node in b.nodes), key=lambda b: len(b.nodes))
