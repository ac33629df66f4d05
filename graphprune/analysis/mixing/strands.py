"""Strands that go together: union-find with parity."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphprune.analysis.mixing.mixing import Strand


@dataclass
class Together:
    """Strands that change by one matrix, up to their signs.

    Attributes:
        parent: for each strand one nearer to its root, and its sign beside that.
        both: strands that would have to have both signs.
    """

    parent: dict[Strand, tuple[Strand, int]] = field(default_factory=dict)
    both: set[Strand] = field(default_factory=set)

    def root(self, strand: Strand) -> tuple[Strand, int]:
        """The first strand of those that a strand goes with, and its sign beside it."""
        sign = 1
        while (up := self.parent.setdefault(strand, (strand, 1)))[0] != strand:
            strand, sign = up[0], sign * up[1]
        return strand, sign

    def join(self, a: Strand, b: Strand, sign: int = 1) -> None:
        """Let two strands go together."""
        (first, own), (second, other) = self.root(a), self.root(b)
        if first == second:
            if own * other != sign:
                self.both.add(first)
            return
        low, high = min(first, second), max(first, second)
        self.parent[high] = (low, own * other * sign)
