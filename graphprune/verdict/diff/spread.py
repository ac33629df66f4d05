"""From matched nodes to their neighbours: what reads the same tensor, or makes it, is the same where it looks the same.

Tensors that correspond are looked at in turn, and who makes and who reads them is matched: by the surest key first,
everywhere, before a weaker one is tried anywhere. A key matches what it tells from all others that read the tensor:

0. operator, input and a name (of the node, or of its first output), numbered or not
1. operator, input and what is near
2. operator, input and attributes
3. operator and input
4. operator alone, or several that look the same in their order
5. through up to two nodes that only one of the models has (a norm that was folded, quantisation that was put in)

Each tensor is paired once, and its readers are gone through once for each key: linear in nodes and edges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator

from graphprune.verdict.diff.colours import Colours
from graphprune.verdict.diff.flat import NOTHING, Flat
from graphprune.verdict.diff.pairs import Pairs

_TIERS = 6
SURE = 2
"""Keys that tell more than a name alone."""
_FEW = 16
"""As many readers at most are matched by order alone."""


class Spread:
    """Matches neighbours of what is matched.

    Args:
        pairs: what is matched; grows.
        colours: of both models.
    """

    def __init__(self, pairs: Pairs, colours: tuple[Colours, Colours]) -> None:
        self.pairs, self.flats = pairs, (pairs.a, pairs.b)
        self.colours = colours
        self.taken = pairs.of_a, pairs.of_b
        self.paired: tuple[set[int], set[int]] = set(), set()
        self.queues: list[deque[tuple[int, int]]] = [deque() for _ in range(_TIERS)]
        self.entered: set[int] = set()
        self._ends()

    def run(self, keys: int = _TIERS) -> None:
        """Match all that can be reached from what is matched by now, by so many of the keys, the surest first."""
        for i, j in enumerate(self.pairs.of_a):
            if j != NOTHING and i not in self.entered:
                self._enter(i, j)
        while (tier := next((t for t, queue in enumerate(self.queues[:keys]) if queue), None)) is not None:
            one, other = self.queues[tier].popleft()
            if self._look(one, other, tier) and tier + 1 < _TIERS:
                self.queues[tier + 1].append((one, other))

    def _ends(self) -> None:
        """What the models take and give, by name, and where names differ by place; functions by their name."""
        one, other = (f.inputs for f in self.flats)
        names = {self.pairs.b.label(t): t for t in other}
        left = [t for t in one if not self._pair(t, names.get(self.pairs.a.label(t), NOTHING))]
        if len(one) == len(other):
            for t, u in zip(one, other, strict=True):
                if t in left:
                    self._pair(t, u)
        for t, u in self.pairs.ends():
            self._pair(t, u)
        for name, (taken, given) in self.pairs.a.functions.items():
            for mine, theirs in zip((taken, given), self.pairs.b.functions.get(name, ([], [])), strict=True):
                for t, u in zip(mine, theirs, strict=False):
                    self._pair(t, u)

    def _pair(self, one: int, other: int) -> bool:
        """Let two tensors be the same; constants tell too little of who reads them."""
        if NOTHING in (one, other) or one in self.paired[0] or other in self.paired[1]:
            return False
        if one in self.pairs.a.constants or other in self.pairs.b.constants:
            return False
        self.paired[0].add(one)
        self.paired[1].add(other)
        self.queues[0].append((one, other))
        return True

    def _enter(self, i: int, j: int) -> None:
        self.entered.add(i)
        one, other = self.pairs.a.nodes[i], self.pairs.b.nodes[j]
        for mine, theirs in ((one.makes, other.makes), (one.reads, other.reads)):
            for t, u in zip(mine, theirs, strict=False):
                self._pair(t, u)

    def _add(self, i: int, j: int, how: str) -> None:
        if self.pairs.add(i, j, how):
            self._enter(i, j)

    def _look(self, one: int, other: int, tier: int) -> bool:
        """Match around two tensors; whether there is something left to match there."""
        makers = self.pairs.a.maker[one], self.pairs.b.maker[other]
        if all(m[0] != NOTHING and taken[m[0]] == NOTHING for m, taken in zip(makers, self.taken, strict=True)):
            (i, slot), (j, place) = makers
            if self._key(0, i, slot, tier) == self._key(1, j, place, tier) is not None:
                self._add(i, j, "structure" if tier else "name")
        readers = self._readers(0, one), self._readers(1, other)
        if readers[0] and readers[1]:
            if tier == _TIERS - 1:
                self._through(readers)
            else:
                self._meet(self._keyed(0, readers[0], tier), self._keyed(1, readers[1], tier), tier)
        return bool(readers[0] and readers[1]) or any(
            m[0] != NOTHING and taken[m[0]] == NOTHING for m, taken in zip(makers, self.taken, strict=True)
        )

    def _readers(self, side: int, tensor: int) -> list[tuple[int, int]]:
        taken = self.taken[side]
        return [(node, slot) for node, slot in self.flats[side].readers[tensor] if taken[node] == NOTHING]

    def _keyed(self, side: int, readers: list[tuple[int, int]], tier: int) -> dict[Hashable, list[int]]:
        found: dict[Hashable, dict[int, None]] = {}  # a node may read a tensor twice
        for node, slot in readers:
            key = self._key(side, node, slot, tier)
            if key is not None:
                found.setdefault(key, {})[node] = None
        return {key: list(nodes) for key, nodes in found.items()}

    def _meet(self, one: dict[Hashable, list[int]], other: dict[Hashable, list[int]], tier: int) -> None:
        for key, nodes in one.items():
            others = other.get(key, [])
            if len(nodes) == len(others) == 1:
                self._add(nodes[0], others[0], "structure" if tier else "name")
            elif tier == 4 and len(nodes) == len(others) <= _FEW:
                for i, j in zip(nodes, others, strict=True):
                    self._add(i, j, "order")

    def _key(self, side: int, node: int, slot: int, tier: int) -> Hashable:
        colours = self.colours[side]
        if tier == 0:
            proto = self.flats[side].nodes[node].proto
            name = proto.name or (proto.output[0] if proto.output else "")
            return (colours.kind[node], slot, name) if name else None
        if tier == 1:
            return colours.near[node], slot
        if tier == 2:
            return colours.own[node], slot
        return (colours.kind[node], slot) if tier == 3 else colours.kind[node]

    def _through(self, readers: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> None:
        """Match what stands behind nodes that only one of the models has."""
        near = [list(dict.fromkeys(node for node, _ in own))[:_FEW] for own in readers]
        for side in (0, 1):
            kinds = {self.colours[side].kind[node] for node in near[side]}
            for node in near[1 - side]:
                for reached in self._behind(1 - side, node):
                    if self.colours[1 - side].kind[reached] in kinds:
                        mine = next(
                            (
                                n
                                for n in near[side]
                                if self.taken[side][n] == NOTHING
                                and self.colours[side].kind[n] == self.colours[1 - side].kind[reached]
                            ),
                            None,
                        )
                        if mine is not None:
                            i, j = (mine, reached) if side == 0 else (reached, mine)
                            self._add(i, j, "structure")
                            break

    def _behind(self, side: int, node: int) -> Iterator[int]:
        """Unmatched nodes one and two steps behind an unmatched one."""
        flat: Flat = self.flats[side]
        step = [node]
        for _ in range(2):
            step = [
                reader
                for own in step
                for tensor in flat.nodes[own].makes
                if tensor != NOTHING
                for reader, _ in flat.readers[tensor][:_FEW]
                if self.taken[side][reader] == NOTHING
            ]
            yield from step
