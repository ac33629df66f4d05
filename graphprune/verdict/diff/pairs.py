"""Which node of one model is which of another, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphprune.verdict.diff.flat import NOTHING, Flat


@dataclass
class Pairs:
    """Nodes of two models that are the same.

    Attributes:
        a: the one model, as it was laid flat.
        b: the other.
        of_a: for each node of the one that of the other, or ``NOTHING``.
        of_b: the other way round.
        how: by nodes of the one, how they were matched.
        whole: of both, colours of all that leads to a node: where they are the same, nodes compute the same.
    """

    a: Flat
    b: Flat
    of_a: list[int] = field(init=False)
    of_b: list[int] = field(init=False)
    how: dict[int, str] = field(default_factory=dict)
    whole: tuple[list[int], list[int]] = field(default=([], []), repr=False)

    def __post_init__(self) -> None:
        self.of_a, self.of_b = [NOTHING] * len(self.a.nodes), [NOTHING] * len(self.b.nodes)

    def add(self, i: int, j: int, how: str) -> bool:
        """Match two nodes, unless one is not there or matched already, or their holders are not the same."""
        if NOTHING in (i, j) or self.of_a[i] != NOTHING or self.of_b[j] != NOTHING:
            return False
        one, other = self.a.nodes[i], self.b.nodes[j]
        if one.kind != other.kind or (one.holder == NOTHING) != (other.holder == NOTHING):
            return False
        if one.holder != NOTHING:
            far, near = self.of_a[one.holder], self.of_b[other.holder]
            if far not in (NOTHING, other.holder) or near not in (NOTHING, one.holder):
                return False
        self.of_a[i], self.of_b[j], self.how[i] = j, i, how
        return True

    def ends(self) -> Iterator[tuple[int, int]]:
        """Outputs of the graphs that are the same one: by name, the rest by place where as many are left."""
        one, other = (
            dict(zip((o.name for o in flat.model.graph.output), flat.outputs, strict=True)) for flat in (self.a, self.b)
        )
        left, right = [n for n in one if n not in other], [n for n in other if n not in one]
        yield from ((one[name], other[name]) for name in one if name in other)
        if len(left) == len(right):
            yield from ((one[n], other[m]) for n, m in zip(left, right, strict=True))

    def consistent(self) -> None:
        """Part the nodes of bodies whose holders turned out not to be the same."""
        for i in range(len(self.of_a) - 1, -1, -1):
            j, holder = self.of_a[i], self.a.nodes[i].holder
            if j != NOTHING and holder != NOTHING and self.of_a[holder] != self.b.nodes[j].holder:
                self.of_a[i] = self.of_b[j] = NOTHING
                del self.how[i]
