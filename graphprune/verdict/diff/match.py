"""Which node of one model is which of another.

Names are not to be trusted alone: tools rename, exporters number. What is surest goes first, and each pair that is
found helps to find its neighbours:

1. ``identical``: the same operator on the same of everything that leads to it, weights by their bytes.
2. ``weights``: the same operator reads a constant that has these bytes and occurs once.
3. ``structure``: a neighbour of a matched node, by the tensor between them and a name, or how the node looks from
   some steps around (see ``spread``).
4. ``name``: the same operator has the name, or the name of an output, and no number makes the name; numbered ones
   (``Conv_12``) only count where a neighbour is matched, or at the end. Then structure again, by less.
5. ``order``: the first of those that look the same is the first.

Every step goes once over nodes and edges. A model is matched with itself to the last node whatever is renamed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from graphprune.verdict.diff.colours import Box, Colours
from graphprune.verdict.diff.flat import NOTHING, Flat
from graphprune.verdict.diff.pairs import Pairs
from graphprune.verdict.diff.spread import SURE, Spread

HOW = ("identical", "weights", "name", "structure", "order")
"""How nodes are matched, the surest first."""
_TELLING = 8
"""Constants of fewer elements tell no node from another."""


def match(a: Flat, b: Flat) -> Pairs:
    """Find which node of one model is which of another; reads all constants of both."""
    pairs, box = Pairs(a, b), Box()
    one, other = Colours(a, box), Colours(b, box)
    pairs.whole = one.whole(), other.whole()
    _alike(pairs, *pairs.whole, "identical")
    _once(pairs, _constants(a, one), _constants(b, other), "weights")
    spread = Spread(pairs, (one, other))
    spread.run(SURE)
    strong_a, strong_b = _unnumbered(a), _unnumbered(b)
    for named in (_names, _outputs):
        _once(pairs, named(a, one, strong_a), named(b, other, strong_b), "name")
    spread.run()
    if NOTHING in pairs.of_a and NOTHING in pairs.of_b:
        _once(pairs, _near(one), _near(other), "structure")
        spread.run()
        for named in (_names, _outputs):
            _once(pairs, named(a, one, None), named(b, other, None), "name")
        spread.run()
        _once(pairs, _names(a, None, strong_a), _names(b, None, strong_b), "name")  # the operator is another one
        spread.run()
        _alike(pairs, one.near, other.near, "order")
        spread.run()
    pairs.consistent()
    return pairs


Keyed = Iterable[tuple[Hashable, int]]


def _alike(pairs: Pairs, one: list[int], other: list[int], how: str) -> None:
    """Match nodes of the same colour, the first with the first, where there are as many in both models."""
    left: dict[int, list[int]] = {}
    right: dict[int, list[int]] = {}
    for colours, taken, found in ((one, pairs.of_a, left), (other, pairs.of_b, right)):
        for node, colour in enumerate(colours):
            if taken[node] == NOTHING:
                found.setdefault(colour, []).append(node)
    for colour, nodes in left.items():
        others = right.get(colour, [])
        if len(nodes) != len(others):
            continue
        called = {pairs.b.nodes[j].label: j for j in others}
        for i in nodes if len(nodes) > 1 else ():
            pairs.add(i, called.get(pairs.a.nodes[i].label, NOTHING), how)
        rest = [j for j in others if pairs.of_b[j] == NOTHING]
        for i, j in zip((i for i in nodes if pairs.of_a[i] == NOTHING), rest, strict=False):
            pairs.add(i, j, how)


def _once(pairs: Pairs, one: Keyed, other: Keyed, how: str) -> None:
    """Match unmatched nodes whose key occurs once among those of each model."""
    left, right = _single(one, pairs.of_a), _single(other, pairs.of_b)
    for key, i in left.items():
        if key in right:
            pairs.add(i, right[key], how)


def _single(keyed: Keyed, taken: list[int]) -> dict[Hashable, int]:
    found: dict[Hashable, int] = {}
    for key, node in keyed:
        if taken[node] == NOTHING:
            found[key] = NOTHING if key in found else node
    return {key: node for key, node in found.items() if node != NOTHING}


def _constants(flat: Flat, colours: Colours) -> Keyed:
    """Nodes by the constants that they read."""
    for index, node in enumerate(flat.nodes):
        for slot, tensor in enumerate(node.reads):
            constant = flat.constants.get(tensor)
            if constant is not None and _size(constant.shape) >= _TELLING:
                yield (colours.kind[index], slot, constant.digest), index


def _near(colours: Colours) -> Keyed:
    return ((colour, node) for node, colour in enumerate(colours.near))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for one in shape:
        size *= one
    return size


def _names(flat: Flat, colours: Colours | None, strong: set[str] | None) -> Keyed:
    """Nodes by their names, and what they do where colours are given; only by strong names where these are given."""
    for index, node in enumerate(flat.nodes):
        name = node.proto.name
        if name and (strong is None or name in strong):
            yield (node.kind if colours is None else colours.kind[index], name), index


def _outputs(flat: Flat, colours: Colours, strong: set[str] | None) -> Keyed:
    for index, node in enumerate(flat.nodes):
        for slot, name in enumerate(node.proto.output):
            if name and (strong is None or name in strong):
                yield (colours.kind[index], slot, name), index


def _unnumbered(flat: Flat) -> set[str]:
    """Names of nodes and tensors that are more than a number behind what others are called too."""
    names = {n.proto.name for n in flat.nodes} | {o for n in flat.nodes for o in n.proto.output}
    stem: Callable[[str], str] = lambda name: _NUMBER.sub("", name)  # noqa: E731
    stems = Counter(map(stem, names))
    return {name for name in names if stem(name) and (stem(name) == name or stems[stem(name)] == 1)}


_NUMBER = re.compile(r"\d+$")
