"""Results as plain data, for JSON and for tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import tomlkit

from graphprune.analysis import Analysis, Group, blocks, cost
from graphprune.analysis.blocks import Block, Blocks
from graphprune.analysis.coupling import Traced
from graphprune.analysis.patterns import Pattern
from graphprune.cli.bases import bases_data
from graphprune.cli.layers import layers_data
from graphprune.cli.targets import targets_data
from graphprune.model import Use, node_name
from graphprune.relation import Slot, facts, pattern
from graphprune.verdict.forecast import forecast

if TYPE_CHECKING:
    from graphprune.passes.results import Result


def group_data(analysis: Analysis, group: Group) -> dict[str, Any]:
    """A group with everything that a table or another program may want."""
    return {
        "id": group.id,
        "kind": group.kind,
        "size": group.size,
        "prunable": group.prunable,
        "statistical": group.statistical,
        "pinned": int(group.pinned.sum()),
        "tensors": sorted({f"{analysis.root(use)}:{axis}" for use, axis in analysis.weights(group)}),
        "parameters": int(group.parameters.sum()),
        "macs": int(group.macs.sum()),
        "reasons": [reason_data(analysis, group, r) for r in _distinct(group.reasons)],
        "statistics": [reason_data(analysis, group, r) for r in _distinct(group.statistics)],
    }


def reason_data(analysis: Analysis, group: Group, reason: Traced) -> dict[str, Any]:
    """A reason with the nodes that lead to it from the nearest weight of the group."""
    return {
        "reason": str(reason),
        "at": analysis.web.label(reason.vertex, analysis.model),
        "chain": analysis.chain(group, reason),
    }


def _distinct(reasons: Sequence[Traced], most: int = 3) -> list[Traced]:
    """The first reason of each wording: a residual stream meets the same norm at every layer."""
    found: dict[str, Traced] = {}
    for reason in reasons:
        found.setdefault(reason.text, reason)
    return list(found.values())[:most]


def local(analysis: Analysis, group: Group) -> bool:
    """Whether a fixed group is of one operator only (the window of a convolution): no news to anybody."""
    return len(group.labels) <= 2 and all(r.node for r in group.reasons)


def inspection(analysis: Analysis, allow_io: bool = False) -> dict[str, Any]:
    """What ``inspect`` says."""
    found = blocks.find_blocks(analysis, allow_io)
    return {
        "blocks": [block_data(analysis, b) for b in found.blocks],
        "fixed_blocks": [{"output": f.output, "nodes": len(f.nodes), "reason": str(f)} for f in found.fixed],
        "model": analysis.model.name,
        "witness": {n: list(s) for n, s in analysis.witness.inputs.items()},
        "parameters": cost.parameters(analysis.model),
        "macs": cost.macs(analysis),
        "bytes": cost.file_bytes(analysis.model),
        "owned": ownership(analysis),
        "owned_macs": owned_macs(analysis),
        "groups": [group_data(analysis, g) for g in analysis.groups],
        "fixed": [group_data(analysis, g) for g in analysis.fixed if not local(analysis, g)],
        "windows": sum(local(analysis, g) for g in analysis.fixed),
        "notes": [{"node": n.node, "text": str(n)} for n in analysis.notes],
    }


def block_data(analysis: Analysis, block: Block) -> dict[str, Any]:
    """A block with everything that a table or another program may want."""
    return {
        "id": block.id,
        "kind": block.kind,
        "output": block.output,
        "by": block.by,
        "depth": block.depth,
        "nodes": [node_name(analysis.model, n) for n in block.nodes],
        "parameters": block.parameters,
        "macs": block.macs,
        "like": [id for id in block.like if id != block.id],
        "parts": list(block.parts),
        "interface": list(block.interface),
    }


def blocks_of(analysis: Analysis, index: int) -> dict[str, Any]:
    """What ``explain`` says of a node's blocks: those that it lies in, or why it lies in none."""
    found = blocks.find_blocks(analysis)
    inside = [b.id for b in found.holding(index)]
    return {"blocks": inside, "no_block": "" if inside else _no_block(analysis, found, index)}


def _no_block(analysis: Analysis, found: Blocks, index: int) -> str:
    fixed = next((f for f in found.fixed if index in f.nodes), None)
    if fixed is not None:
        return f"what leads to {fixed.output!r} looks like a block, but {fixed}"
    layout = analysis.model.layout
    if layout is not None and layout.of(analysis.model.nodes[index]):
        return "it is in the body of a control flow node, and these stay whole"
    if all(
        o in analysis.model.constant_names or o in analysis.witness.first.values
        for o in analysis.model.nodes[index].output
        if o
    ):
        return "it makes constants or sizes"
    return (
        "no tensor behind it that all its data passes has the shape of one before it, with a product between, so that "
        "one could stand for the other"
    )


def ownership(analysis: Analysis) -> dict[str, int]:
    """Parameters by the best group that owns an axis of their tensor: exact, statistical, or none."""
    best: dict[str, str] = {}
    for name, groups in (
        ("none", []),
        ("statistical", [g for g in analysis.groups if g.statistical]),
        ("exact", [g for g in analysis.groups if not g.statistical]),
    ):
        for group in groups:
            for use, _ in analysis.weights(group):
                best[analysis.root(use)] = name
    total: Counter[str] = Counter({"exact": 0, "statistical": 0, "none": 0})
    for name, source in analysis.model.sources.items():
        total[best.get(name, "none")] += cost.elements(source)
    return dict(total)


def owned_macs(analysis: Analysis) -> dict[str, int]:
    """Multiply-accumulates by the best group that owns a dim of their product: exact, statistical, or none."""
    net, total = analysis.web, dict.fromkeys(("exact", "statistical", "none"), 0)
    vertices = [
        {v for g in analysis.groups if g.statistical is statistical for v in g.labels} for statistical in (False, True)
    ]
    for node, relation in enumerate(net.relations):
        for product in relation.macs if relation is not None else ():
            dims = [net.dim_start[node] + dim for dim in product]
            owners = [name for name, own in zip(total, vertices, strict=False) if not own.isdisjoint(dims)]
            total[owners[0] if owners else "none"] += prod(int(net.sizes[dim]) for dim in dims)
    return total


def result_data(result: Result) -> dict[str, Any]:
    """What ``prune`` and ``apply`` say."""
    return {
        "model": result.analysis.model.name,
        "sha256": result.plan.model.get("sha256"),
        "output": None if result.output is None else str(result.output),
        "before": _cost(result.before),
        "after": _cost(result.after),
        "kinds": kinds(map(vars, result.plan.groups)),
        "blocks": [
            {**vars(entry), "score": score}
            for entry, score in zip(result.without.entries, result.without.scores, strict=True)
        ]
        if result.without is not None
        else [],
        "proof": None if result.proof is None else {"worst": result.proof.worst, **result.proof.to_json()},
        "rounds": rounds(result),
        "untouched": [{"group": u.group, "reason": str(u)} for u in result.untouched],
        "choices": [one.to_json() for one in result.choices],
        "layers": layers_data(result.analysis, result.plan.selection),
        "bases": bases_data(result),
        "calibration": result.plan.calibration,
        "compensated": result.plan.compensated,
        "abroad": [vars(place) for place in result.abroad],
        "sparse": sparse_data(result),
        "distilled": distilled_data(result),
        "met": targets_data(result.met),
        "stored": stored_data(result),
        "notes": result.notes,
        "recipe": recipe_data(result),
        "verdict": None if result.verdict is None else result.verdict.to_json(),
        "seconds": {k: round(v, 3) for k, v in result.seconds.items()},
    }


def recipe_data(result: Result) -> str | None:
    """The recipe that was followed, as TOML, paths as names of files alone; None where nothing was done."""
    text = next((p.value for p in result.model.proto.metadata_props if p.key == "graphprune.recipe"), None)
    return None if text is None else tomlkit.dumps(json.loads(text))


def rounds(result: Result) -> list[dict[str, Any]]:
    """What each of several rounds came to: classes that went, what was left, and its own proof."""
    return [
        {"classes": sum(map(len, own["removed"].values())), "groups": len(own["removed"]),
         "macs": left.macs, "parameters": left.parameters, "proof": own.get("proof")}
        for own, left in zip(result.plan.rounds, result.rounds, strict=False)
    ]  # fmt: skip


def sparse_data(result: Result) -> dict[str, Any] | None:
    """What became sparse and what did not; None where that was not asked for."""
    if result.sparse is None:
        return None
    found = result.sparse
    by_method: dict[str, list[tuple[int, float, float]]] = {}
    for one in found.thinned:
        entry = one.target.layers[0].elements, one.kept, one.kept_magnitude
        by_method.setdefault(one.method, []).append(entry)
    ordered = found.ordered
    return {
        "pattern": found.request.pattern,
        "kinds": [
            {"method": method, "weights": len(own), "elements": sum(n for n, *_ in own),
             "kept": sum(n * k for n, k, _ in own) / sum(n for n, *_ in own),
             "kept_magnitude": float(np.mean([m for *_, m in own]))}
            for method, own in by_method.items()
        ],
        "weights": result.plan.sparsity,
        "rounds": found.rounds if len(found.rounds) > 1 else [],
        "dense": [{"node": s.node, "weight": s.weight, "reason": str(s)} for s in found.skipped],
        "ordered": [{"group": o.group, "before": o.before, "after": o.after} for o in ordered],
        "scores": [float(np.mean([o.before for o in ordered])), float(np.mean([o.after for o in ordered]))]
        if ordered else None,
        "deflated": None if result.compressed is None else list(result.compressed),
    }  # fmt: skip


def distilled_data(result: Result) -> dict[str, Any] | None:
    """What was trained, and what that came to; None where it was not asked for."""
    found = result.distilled
    if found is None:
        return None
    course = found.course
    return {
        "kept": found.kept,
        "steps": course.steps,
        "best": course.best,
        "rate": course.rate,
        "before": course.before,
        "after": course.after,
        "looks": [list(look) for look in course.looks],
        "seconds": round(course.seconds, 3),
        "losses": dict(found.losses),
        "skipped": dict(found.skipped),
        "weights": found.weights,
        "untrained": [vars(one) for one in found.untrained],
    }


def stored_data(result: Result) -> dict[str, Any] | None:
    """Which weights are stored sparse, and what that is worth; None where it was not asked for."""
    found = result.stored
    if found is None:
        return None
    beside = found.beside
    loads = None if beside is None else beside.loads
    forms = "dense", "sparse"
    return {
        "how": found.how,
        "weights": [vars(entry) for entry in found.weights],
        "dense": [{"weight": one.weight, "reason": str(one)} for one in found.dense],
        "outputs_compared": 0 if beside is None else beside.compared,
        "bytes": None if beside is None else dict(zip(forms, beside.bytes, strict=True)),
        "load": None if loads is None else dict(zip(forms, map(vars, loads), strict=True)),
    }


def sparsity_data(analysis: Analysis, pattern: Pattern) -> dict[str, Any]:
    """What ``inspect --sparsity`` says: every product with a weight, and the state of that weight."""
    found = forecast(analysis.model, analysis.witness, analysis.web, True, pattern)
    return {
        "model": analysis.model.name,
        "pattern": str(pattern),
        "layers": [
            {
                "node": e.node, "weight": e.weight, "axis": e.axis, "sums": e.sums, "outputs": e.outputs,
                "elements": e.elements, "follows": e.sparse, "kept_magnitude": e.kept, **told.to_json(),
            }
            for told in found
            for e in [told.layer]
        ],
    }  # fmt: skip


def kinds(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups of a plan that were touched, by kind, with their classes before and after.

    Args:
        groups: as the plan's JSON has them.
    """
    found: dict[str, dict[str, Any]] = {}
    for group in (g for g in groups if g["removed"]):
        entry = found.setdefault(group["kind"], {"kind": group["kind"], "groups": 0, "classes": 0, "kept": 0})
        entry["groups"] += 1
        entry["classes"] += group["size"]
        entry["kept"] += group["size"] - len(group["removed"])
    return list(found.values())


def _cost(value: cost.Cost) -> dict[str, int]:
    return {"parameters": value.parameters, "macs": value.macs, "bytes": value.bytes}


def node_data(analysis: Analysis, index: int) -> dict[str, Any]:
    """What ``explain`` says of a node: its relation, and which groups own its axes."""
    node = analysis.model.nodes[index]
    relation = analysis.web.relations[index]
    axes = []
    for slot, maps in relation.slots() if relation is not None else ():
        for a in range(len(maps)):
            axes.append(_axis_data(analysis, index, slot, a))
    return {
        "node": node_name(analysis.model, index),
        "op": node.op_type,
        "relation": "makes a constant" if relation is None else pattern(relation),
        "says": [] if relation is None else list(facts(relation)),
        "axes": [a for a in axes if a["size"] > 1],
    }


def _axis_data(analysis: Analysis, index: int, slot: Slot, axis: int) -> dict[str, Any]:
    net = analysis.web
    vertex = net.axis(index, slot, axis)
    assert vertex is not None
    node = analysis.model.nodes[index]
    name = node.input[slot[1]] if slot[0] == "in" else node.output[slot[1]]
    groups = [g for g in [*analysis.groups, *analysis.fixed] if vertex in g.labels]
    return {
        "slot": f"{slot[0]}put {slot[1]}" if slot[0] == "in" else f"output {slot[1]}",
        "tensor": name,
        "constant": isinstance(net.tensor_of[vertex][0], Use),
        "axis": axis,
        "size": net.sizes[vertex],
        "groups": [
            {
                "id": g.id,
                "kind": g.kind,
                "prunable": g.prunable,
                "statistical": g.statistical,
                "why": "" if g.prunable or not g.reasons else g.reasons[0].text,
                "classes": len(np.unique(g.labels[vertex][g.labels[vertex] >= 0])),
            }
            for g in groups
        ],
    }
