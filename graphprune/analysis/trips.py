"""How often the body of a loop runs, where that is certain before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from onnx import NodeProto

from graphprune.model import Model, control, limits, node_name
from graphprune.relation import Shape, Values
from graphprune.rules.control import DOMAIN


def of_loop(model: Model, node: NodeProto, values: Mapping[str, Values]) -> float | None:
    """How often a Loop runs its body: as often as it says where its condition never ends it; infinity for ever.

    Args:
        model: with its control flow laid open.
        node: the Loop, in the flat form.
        values: of tensors that are known.

    Returns:
        None where the condition is computed, or the trip count is not known.
    """
    own = next(a.i for a in node.attribute if a.name == "inputs")
    if not (begun := _holds(model, node.input[1], values) if node.input[1] else True):
        return None if begun is None else 0
    if not (goes_on := _holds(model, node.input[own], values)):  # what its body returns first
        return None if goes_on is None else 1
    if not node.input[0]:
        return inf
    count = values.get(node.input[0])
    return None if count is None or count.size != 1 else max(int(count.reshape(-1)[0]), 0)


def _holds(model: Model, name: str, values: Mapping[str, Values]) -> bool | None:
    """Whether a condition holds, where that is certain: that of a loop does wherever its body runs."""
    while (made := model.producer.get(name)) is not None and model.nodes[made].op_type == "Identity":
        name = model.nodes[made].input[0]
    maker = None if made is None else model.nodes[made]
    if maker is not None and maker.domain == DOMAIN and maker.op_type == "Enter":
        kind = next(a.s for a in maker.attribute if a.name == "kind")
        return True if kind == b"Loop" and name == maker.output[1] else None
    found = values.get(name)
    return None if found is None or found.size != 1 else bool(found.reshape(-1)[0])


def too_many(model: Model, shapes: Mapping[str, Shape], values: Mapping[str, Values]) -> str | None:
    """What to say of a loop whose body runs more often than anyone waits for, with those that it stands in."""
    if model.layout is None:
        return None
    runs: dict[int, float] = {0: 1}
    for index in range(len(model.nodes) - 1, -1, -1):  # a loop stands behind its body, and so behind loops in it
        node = model.nodes[index]
        if node.domain != DOMAIN or node.op_type == "Enter":
            continue
        own: float | None = 1  # of an If
        if node.op_type != "If":
            own = of_loop(model, node, values) if node.op_type == "Loop" else control.scanned(node, shapes)
        total = runs.get(model.layout.of(node), 1) * (1 if own is None else own)
        label = next(o for o in node.output if o)
        runs.update((number, total) for number in model.layout.holders[label][1])
        if total > limits.TRIPS:
            often = "for ever" if total == inf else f"{int(total):,} times"
            return (
                f"node {node_name(model, index)!r} ({node.op_type}) runs its body {often}, more than the "
                f"{limits.TRIPS:,} times that are allowed; give it a smaller trip count, or a condition that ends it"
            )
    return None
