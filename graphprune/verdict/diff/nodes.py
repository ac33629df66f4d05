"""What changed of operators: which came and went, what reads something else, and attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from graphprune.verdict.diff import colours
from graphprune.verdict.diff.flat import NOTHING, Flat
from graphprune.verdict.diff.pairs import Pairs


def operators(pairs: Pairs) -> dict[str, Any]:
    """Operators of each type before and after, and nodes that came, went, became another, or have a new name."""
    counts = [Counter(operator(flat, i) for i in range(len(flat.nodes))) for flat in (pairs.a, pairs.b)]
    both = [(i, j) for i, j in enumerate(pairs.of_a) if j != NOTHING]
    return {
        "types": [
            {"op": op, "before": counts[0][op], "after": counts[1][op]}
            for op in sorted(counts[0] | counts[1])
            if counts[0][op] != counts[1][op]
        ],
        "added": [_node(pairs.b, j) for j, i in enumerate(pairs.of_b) if i == NOTHING],
        "removed": [_node(pairs.a, i) for i, j in enumerate(pairs.of_a) if j == NOTHING],
        "changed": [
            {"node": pairs.a.nodes[i].label, "now": pairs.b.nodes[j].label, "before": operator(pairs.a, i),
             "after": operator(pairs.b, j)}
            for i, j in both
            if pairs.a.nodes[i].op != pairs.b.nodes[j].op
        ],
        "renamed": [
            [pairs.a.nodes[i].label, pairs.b.nodes[j].label]
            for i, j in both
            if pairs.a.nodes[i].label != pairs.b.nodes[j].label
        ],
    }  # fmt: skip


def operator(flat: Flat, index: int) -> str:
    """The operator of a node, with its domain where that is not ONNX's own."""
    domain, op = flat.nodes[index].op
    return f"{domain}:{op}" if domain else op


def _node(flat: Flat, index: int) -> dict[str, Any]:
    return {"node": flat.nodes[index].label, "op": operator(flat, index), "in": flat.nodes[index].kind}


def wiring(pairs: Pairs) -> list[dict[str, Any]]:
    """Inputs of nodes in both models that read what is not the same tensor, and outputs that are another one."""
    a, b = pairs.a, pairs.b
    found = []
    for i, j in enumerate(pairs.of_a):
        if j == NOTHING:
            continue
        one, other = a.nodes[i].reads, b.nodes[j].reads
        for slot in range(max(len(one), len(other))):
            t = one[slot] if slot < len(one) else NOTHING
            u = other[slot] if slot < len(other) else NOTHING
            if not _corresponds(pairs, t, u):
                entry = {"node": a.nodes[i].label, "input": slot, "before": a.label(t), "after": b.label(u)}
                found.append({**entry, "folded": u in b.constants and t not in a.constants})
    for t, u in pairs.ends():
        if not _corresponds(pairs, t, u):
            found.append({"node": None, "input": None, "before": a.label(t), "after": b.label(u), "folded": False})
    return found


def _corresponds(pairs: Pairs, t: int, u: int) -> bool:
    """Whether two tensors are the same.

    They are if the same node makes them, or nodes that compute the same; if both are inputs or constants; or by name,
    where one of them is made by a node that only one model has: what was merged into a neighbour keeps the name.
    """
    if NOTHING in (t, u):
        return t == u
    (i, slot), (j, place) = pairs.a.maker[t], pairs.b.maker[u]
    if i == NOTHING or j == NOTHING:
        if i != j or (t in pairs.a.constants) != (u in pairs.b.constants):
            return False
        return t in pairs.a.constants or _same_input(pairs, t, u)
    if slot == place and (pairs.of_a[i] == j or pairs.whole[0][i] == pairs.whole[1][j]):
        return True
    return pairs.a.label(t) == pairs.b.label(u) and NOTHING in (pairs.of_a[i], pairs.of_b[j])


def _same_input(pairs: Pairs, t: int, u: int) -> bool:
    """Of two tensors that the graphs or functions take: by name, or by place where no name is in both."""
    one, other = pairs.a.label(t), pairs.b.label(u)
    if one == other:
        return True
    for mine, theirs in [(pairs.a.inputs, pairs.b.inputs), *_functions(pairs)]:
        if t in mine and u in theirs and mine.index(t) == theirs.index(u):
            return one not in map(pairs.b.label, theirs) and other not in map(pairs.a.label, mine)
    return False


def _functions(pairs: Pairs) -> Iterator[tuple[list[int], list[int]]]:
    for name, (taken, _) in pairs.a.functions.items():
        if name in pairs.b.functions:
            yield taken, pairs.b.functions[name][0]


def attributes(pairs: Pairs) -> list[dict[str, Any]]:
    """Attributes of nodes in both models that differ; what is left out counts as what the schema says it is then."""
    opsets = [flat.model.opsets for flat in (pairs.a, pairs.b)]
    found = []
    for i, j in enumerate(pairs.of_a):
        if j == NOTHING:
            continue
        one, other = (
            colours.attributes(n.proto, own.get(n.op[0], 1))
            for n, own in zip((pairs.a.nodes[i], pairs.b.nodes[j]), opsets, strict=True)
        )
        if one == other:
            continue
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                before, after = (colours.shown(own.get(name)) for own in (one, other))
                found.append(
                    {"node": pairs.a.nodes[i].label, "op": operator(pairs.a, i), "name": name, "before": before,
                     "after": after}
                )  # fmt: skip
    return found
