"""Layers before and after: each product with a weight, how wide it was and is, and what it lost by which group.

A layer is a node that multiplies by a constant; its width is the number of elements that it makes along dims of the
weight, what it reads the number that a sum runs over. Windows of a convolution are no widths. The relation of a node
says all of that; no operator is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from graphprune.analysis import Analysis
from graphprune.analysis.web import Web
from graphprune.model import Use, node_name
from graphprune.relation import AxisMap, Relation
from graphprune.rewrite.removal import Removal


def layers_data(analysis: Analysis, selection: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """All layers, in the order of the nodes.

    Args:
        analysis: of the model that classes were removed from.
        selection: removed classes by group.
    """
    net, groups = analysis.web, _owners(analysis)
    removal = Removal(analysis, selection)
    found = []
    for index, relation in enumerate(net.relations):
        if relation is None or not relation.macs:
            continue
        macs = [_macs(net, relation, index, size) for size in (net.sizes.__getitem__, removal.size)]
        for position, name in enumerate(analysis.model.nodes[index].input):
            use = Use(index, position)
            axes = relation.inputs[position] if position < len(relation.inputs) else None
            if name not in analysis.model.constant_names or axes is None or use not in net.axis_of:
                continue
            summed = _summed(relation)
            if not any(d in summed for axis in axes for d in axis.dims):
                continue
            after = removal.shape(use)
            assert after is not None
            own = {
                "node": node_name(analysis.model, index),
                "op": analysis.model.nodes[index].op_type,
                "weight": analysis.model.root(name),
                "shape": [list(net.shapes[use]), list(after)],
                "groups": list(dict.fromkeys(id for id in (groups.get((use, a)) for a in range(len(axes))) if id)),
                "macs": macs,
            }
            found.append(own | _widths(net, removal, relation, index, axes) | {"by": _maker(groups, use, axes, summed)})
    return found


def _owners(analysis: Analysis) -> dict[tuple[Use, int], str]:
    """By axis of a use of a constant the group that it belongs to."""
    return {place: group.id for group in reversed(analysis.groups) for place in analysis.weights(group)}


def _summed(relation: Relation) -> set[int]:
    """Dims of products that no output has."""
    kept = {d for axes in relation.outputs for axis in axes or () for d in axis.dims}
    return {d for product in relation.macs for d in product} - kept


def _macs(net: Web, relation: Relation, index: int, size: Any) -> int:
    start = net.dim_start[index]
    return sum(prod(int(size(start + d)) for d in product) for product in relation.macs)


def _widths(
    net: Web, removal: Removal, relation: Relation, index: int, axes: Sequence[AxisMap]
) -> dict[str, list[int]]:
    """Elements that are made, and that are summed over, each before and after."""
    start, summed = net.dim_start[index], _summed(relation)
    own = {d for axis in axes for d in axis.dims if relation.dims[d].pinned is None or d not in summed}
    made, read = sorted(own - summed), sorted(own & summed)
    return {
        name: [prod(net.sizes[start + d] for d in dims), prod(removal.size(start + d) for d in dims)]
        for name, dims in (("width", made), ("reads", read))
    }


def _maker(groups: Mapping[tuple[Use, int], str], use: Use, axes: Sequence[AxisMap], summed: set[int]) -> str | None:
    """The group of what the layer makes; None where that is in none."""
    made = (a for a, axis in enumerate(axes) if not set(axis.dims) <= summed and (use, a) in groups)
    return next((groups[use, a] for a in made), None)
