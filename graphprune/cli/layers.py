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
from graphprune.model import Model, node_name
from graphprune.relation import AxisMap, Relation
from graphprune.rewrite.removal import Removal


def layers_data(analysis: Analysis, selection: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """All layers, in the order of the nodes.

    Args:
        analysis: of the model that classes were removed from.
        selection: removed classes by group.
    """
    net, model = analysis.web, analysis.model
    removal, fixed = Removal(analysis, selection), _fixed(model)
    owners = {vertex: group.id for group in reversed(analysis.groups) for vertex in group.labels}
    found = []
    for index, relation in enumerate(net.relations):
        if relation is None or not relation.macs:
            continue
        macs = [_macs(net, relation, index, size) for size in (net.sizes.__getitem__, removal.size)]
        summed = _summed(relation)
        for position, name in enumerate(model.nodes[index].input):
            axes = relation.inputs[position] if position < len(relation.inputs) else None
            tensor = net.tensors.get((index, ("in", position)))
            if name not in fixed or tensor is None or not any(d in summed for axis in axes or () for d in axis.dims):
                continue
            assert axes is not None
            start = net.axis_of[tensor]
            groups = [owners.get(start + a) for a in range(len(axes))]
            # the group of what the layer makes: of an axis that no sum runs over
            made = (id for id, axis in zip(groups, axes, strict=True) if id and not set(axis.dims) <= summed)
            own = {
                "node": node_name(model, index),
                "op": model.nodes[index].op_type,
                "weight": model.root(name),
                "shape": [list(net.shapes[tensor]), list(removal.shape(tensor) or ())],
                "groups": list(dict.fromkeys(id for id in groups if id)),
                "macs": macs,
            }
            found.append(own | _widths(net, removal, relation, index, axes) | {"by": next(made, None)})
    return found


def _fixed(model: Model) -> set[str]:
    """Tensors that no input changes: constants, and what nodes make of them, as of weights of eight bits."""
    found = set(model.constant_names)
    for node in model.nodes:
        read = [name for name in node.input if name]
        if read and all(name in found for name in read):
            found.update(node.output)
    return found


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
