"""What changed of constants: those that matched nodes read at the same input, and what only one model has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from onnx import TensorProto

from graphprune.analysis.cost import WEIGHT_TYPES
from graphprune.verdict.diff.flat import NOTHING, Constant, Flat
from graphprune.verdict.diff.nodes import operator
from graphprune.verdict.diff.pairs import Pairs
from graphprune.verdict.diff.weights import STATES, fate, values, zeros


def compare(pairs: Pairs) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Constants that are not the same, and how many are what."""
    found = []
    counts: Counter[str] = Counter(dict.fromkeys(("same", *STATES, "added", "removed"), 0))
    paired = list(_paired(pairs))
    for one, other, i, slot in paired:
        before, after = pairs.a.constants[one], pairs.b.constants[other]
        what = fate(before, after)
        stored = [c.name in flat.model.stored for c, flat in ((before, pairs.a), (after, pairs.b))]
        if what is None and stored[0] == stored[1]:
            counts["same"] += 1
            continue
        counts["same" if what is None else what.state] += 1
        entry = _entry(before, after, stored)
        entry |= {"state": "same" if what is None else what.state} | _place(pairs.a, i, slot)
        if pairs.a.unread(one) and pairs.b.unread(other):
            entry["unread"] = True
        if what is not None:
            entry |= {"relative": what.relative, "largest": what.largest, "elements": what.elements}
        found.append(entry)
    taken = [{one for one, *_ in paired}, {other for _, other, *_ in paired}]
    for side, (flat, state) in enumerate(((pairs.a, "removed"), (pairs.b, "added"))):
        for tensor, constant in flat.constants.items():
            if tensor in taken[side]:
                continue
            counts[state] += 1
            stored = [constant.name in flat.model.stored] * 2
            i, slot = flat.readers[tensor][0] if flat.readers[tensor] else (NOTHING, 0)
            found.append(
                _entry(constant if side == 0 else None, constant if side else None, stored)
                | {"state": state}
                | _place(flat, i, slot)
                | ({"unread": True} if flat.unread(tensor) else {})
            )
    return found, dict(counts)


def widths(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Layers in both models whose weight has another shape, from what :func:`compare` found."""
    found = []
    for e in entries:
        before, after = e["shapes"]
        layer = e["kind"] == "weight" and e["node"] is not None and None not in (before, after) and len(before) > 1
        if layer and before != after and e["state"] not in ("reshaped", "transposed"):
            found.append(
                {"node": e["node"], "op": e["op"], "weight": e["names"][0], "before": before, "after": after,
                 "state": e["state"]}
            )  # fmt: skip
    return found


def _paired(pairs: Pairs) -> Iterator[tuple[int, int, int, int]]:
    """Constants that are the same one, with the first node of the one model that reads it, and at which input.

    Those that no matched node reads are paired by their bytes, and what is left by name.
    """
    seen: set[tuple[int, int]] = set()
    left: set[int] = set()
    right: set[int] = set()
    for i, j in enumerate(pairs.of_a):
        if j == NOTHING:
            continue
        for slot, (t, u) in enumerate(zip(pairs.a.nodes[i].reads, pairs.b.nodes[j].reads, strict=False)):
            if t in pairs.a.constants and u in pairs.b.constants and (t, u) not in seen:
                seen.add((t, u))
                left.add(t)
                right.add(u)
                yield t, u, i, slot
    for key in _KEYS:
        others: dict[Any, list[int]] = {}
        for u, constant in pairs.b.constants.items():
            if u not in right:
                others.setdefault(key(constant), []).append(u)
        for t, constant in pairs.a.constants.items():
            if t not in left and others.get(key(constant)):
                u = others[key(constant)].pop(0)
                left.add(t)
                right.add(u)
                i, slot = pairs.a.readers[t][0] if pairs.a.readers[t] else (NOTHING, 0)
                yield t, u, i, slot


_KEYS: tuple[Callable[[Constant], Any], ...] = (lambda c: c.digest, lambda c: c.name)


def _entry(before: Constant | None, after: Constant | None, stored: list[bool]) -> dict[str, Any]:
    """What JSON has of a constant, whatever became of it."""
    both = before, after
    known = before or after
    assert known is not None
    entry = {
        "names": [None if c is None else c.name for c in both],
        "kind": "weight" if known.tensor.data_type in WEIGHT_TYPES and prod(known.shape) > 1 else "number",
        "shapes": [None if c is None else list(c.shape) for c in both],
        "types": [None if c is None else TensorProto.DataType.Name(c.tensor.data_type).lower() for c in both],
        "zeros": [None if c is None else zeros(c) for c in both],
        "values": [None if c is None else values(c) for c in both],
    }
    return entry if stored[0] == stored[1] else {**entry, "stored": ["sparse" if s else "dense" for s in stored]}


def _place(flat: Flat, node: int, slot: int) -> dict[str, Any]:
    if node == NOTHING:
        return {"node": None, "op": None, "input": None}
    return {"node": flat.nodes[node].label, "op": operator(flat, node), "input": slot}
