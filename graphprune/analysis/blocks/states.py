"""States that callers carry round: outputs of a graph that give back an input (a cache of keys and values)."""

from __future__ import annotations

from graphprune.analysis import Analysis
from graphprune.analysis.dataflow import DataFlow


def carried(analysis: Analysis) -> dict[str, str]:
    """Outputs of the graph that give back an input, grown or changed without a product: a state, and whose it is."""
    flow = DataFlow(analysis)
    witness = analysis.witness.first
    found: dict[str, str] = {}
    inputs = {i.name for i in analysis.model.inputs}
    for output in flow.outputs:
        seen, pending = {output}, [output]
        while pending:
            tensor = pending.pop(0)
            same = len(witness.shapes.get(tensor, ())) == len(witness.shapes.get(output, ()))
            if tensor in inputs and same and witness.types.get(tensor) == witness.types.get(output):
                if tensor not in found.values():
                    found[output] = tensor
                break
            node = flow.maker(tensor)
            if node is not None and not flow.macs[node]:
                fresh = [n for n in flow.reads[node] if n not in seen]
                seen.update(fresh)
                pending += fresh
    return found


def grown(analysis: Analysis) -> dict[str, tuple[int, ...]]:
    """Inputs that carry a state which a run makes longer, and the axes along which it grows (a cache of any length)."""
    model, shapes = analysis.model, analysis.witness.first.shapes
    if len(model.inputs) < 2:
        return {}
    found = {}
    for output, given in carried(analysis).items():
        sizes = zip(shapes.get(given, ()), shapes.get(output, ()), strict=False)
        if axes := tuple(axis for axis, (before, after) in enumerate(sizes) if after > before):
            found[given] = axes
    return found
