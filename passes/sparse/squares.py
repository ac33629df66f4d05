"""How large what products sum over is on given inputs: mean squares by channel, streamed, in memory of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.analysis.sparsity import Layer
from graphprune.analysis.web import Web
from graphprune.model import Model
from graphprune.relation import AxisMap, Relation
from graphprune.run.calibration import Batches
from graphprune.run.moments import FloatArray
from graphprune.run.staged import observed, waves

Key = tuple[int, int]
"""Node and input of a weight."""


@dataclass(frozen=True)
class _Read:
    """What a product reads beside its weight, and the axis that it sums over."""

    key: Key
    input: str
    axis: int
    output: str


def squares(model: Model, net: Web, layers: Sequence[Layer], batches: Batches) -> dict[Key, FloatArray]:
    """Mean squares of every element of the sums of some products; those that are no axis of an activation are left out.

    Args:
        model: in canonical form.
        net: its web.
        layers: the products.
        batches: gives the inputs.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    runs = model.runnable
    reads = [r for layer in layers if (r := _read(model, net, layer)) is not None and r.output in runs.producer]
    by_node: dict[int, list[_Read]] = {}
    for read in reads:
        by_node.setdefault(runs.producer[read.output], []).append(read)
    steps = waves(runs, by_node)
    total: dict[Key, FloatArray] = {}
    counts: dict[Key, int] = {}
    every = [[read for own in step for read in own] for step in steps]
    made = [{read.output: [r.input for r in step if r.output == read.output] for read in step} for step in every]
    for number, _, values in observed(runs, made, batches):
        for read in every[number]:
            x = np.moveaxis(values[read.input], read.axis, 0)
            channels = x.reshape(len(x), -1).astype(np.float32)
            own = np.einsum("ij,ij->i", channels, channels).astype(np.float64)
            total[read.key] = total.get(read.key, 0.0) + own
            counts[read.key] = counts.get(read.key, 0) + channels.shape[1]
    return {key: value / max(counts[key], 1) for key, value in total.items()}


def _read(model: Model, net: Web, layer: Layer) -> _Read | None:
    """The axis of an activation that the weight's is multiplied with."""
    relation, node = net.relations[layer.index], model.nodes[layer.index]
    if relation is None or layer.axis is None:
        return None
    wanted = _dims(relation, (relation.inputs[layer.position] or ())[layer.axis])
    for k, axes in enumerate(relation.inputs):
        if axes is None or k == layer.position or node.input[k] in model.constant_names:
            continue
        for a, axis in enumerate(axes):
            if axis.lookup is None and _dims(relation, axis) == wanted:
                output = next(o for o in node.output if o)
                return _Read((layer.index, layer.position), node.input[k], a, output)
    return None


def _dims(relation: Relation, axis: AxisMap) -> list[int]:
    return [d for d in axis.dims if relation.dims[d].size > 1]
