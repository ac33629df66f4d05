"""Which weights follow a pattern, and which TensorRT could read by its sparse kernels.

In 2:4 (Mishra et al., Accelerating Sparse Deep Neural Networks, 2021) at least two of every four consecutive weights
along the axis that a product sums over are zero: input channels of a convolution, for each output channel and kernel
position; K of a matrix product. What TensorRT asks for beside: a constant weight, one group, one axis of summation, and
a type that sparse tensor cores take. Widths are a rule of thumb: outputs a multiple of 8, the sum of 16, of 32 for 8
bits. Whether a sparse kernel is faster is decided by timing on the GPU (gains from about 256 channels up).

Where the sum runs is read off each node's relation; no operator is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from onnx import TensorProto, helper

from graphprune.analysis.int8 import EIGHT_BITS
from graphprune.analysis.origins import Lost, Origin, origin
from graphprune.analysis.patterns import SPARSE, Pattern
from graphprune.analysis.reasons import Reason
from graphprune.analysis.shapes import Witness
from graphprune.analysis.web import Web
from graphprune.model import Model, node_name
from graphprune.relation import AxisMap, Relation, Values
from graphprune.run.runtime import fold_constants

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Layer:
    """A product of an activation with a constant.

    Attributes:
        index, position: which node, and which of its inputs is the weight.
        node: name of the node.
        weight: name of the constant that holds the weight.
        axis: of the weight as the node reads it, along which the product sums; None where it sums along several or
            none alone.
        sums, outputs: how many elements one sum has along that axis, and how many outputs there are.
        elements: of the weight.
        held: the ``TensorProto`` type that the weight is stored in.
        reasons: why TensorRT's sparse kernels are out of the question; none where the layer is eligible.
        origin: where the weight comes from; None where it cannot be followed, and ``lost`` says why.
        sparse: whether the weight follows the pattern along the axis.
        kept: the share of the weight's magnitude that the pattern keeps, 1 where the weight follows it.
    """

    index: int
    position: int
    node: str
    weight: str
    axis: int | None
    sums: int
    outputs: int
    elements: int
    held: int
    reasons: tuple[Reason, ...]
    origin: Origin | None = None
    lost: Reason | None = None
    sparse: bool = False
    kept: float | None = None

    @property
    def eligible(self) -> bool:
        """Whether the layer's shape, groups and type allow a sparse kernel, once its weight follows the pattern."""
        return not self.reasons

    @property
    def eight_bits(self) -> bool:
        """Whether the weight is stored in 8 bits."""
        return self.held in EIGHT_BITS


def layers(model: Model, witness: Witness, net: Web, half: bool = False, pattern: Pattern = SPARSE) -> list[Layer]:
    """Every product of an activation with a constant, with the state of its weight, in the order of the nodes.

    Args:
        model: in canonical form.
        witness: its sizes and types.
        net: its web.
        half: judge float32 weights as the float16 that they will be converted to.
        pattern: the pattern.
    """
    return [measured(model, layer, pattern) for layer in find_layers(model, witness, net, half, pattern)]


def find_layers(
    model: Model, witness: Witness, net: Web, half: bool = False, pattern: Pattern = SPARSE
) -> Iterator[Layer]:
    """The same without a look at the weights: ``sparse`` and ``kept`` are left open."""
    for index, relation in enumerate(net.relations):
        if relation is None or not relation.macs:
            continue
        for position, name in enumerate(model.nodes[index].input):
            if name in model.constant_names and _multiplied(relation, position):
                yield _layer(model, net, relation, index, position, half, pattern)


def read(model: Model, layer: Layer) -> Values:
    """The weight as the node reads it.

    Raises:
        RefusedError: ONNX Runtime does not run the nodes that compute it.
    """
    name = model.nodes[layer.index].input[layer.position]
    root = model.root(name)
    return model.array(root) if root in model.sources else fold_constants(model, [name])[name]


def real(model: Model, layer: Layer) -> Values:
    """Magnitudes of the weight as the node reads it, float32.

    Raises:
        RefusedError: ONNX Runtime does not run the nodes that compute it.
    """
    return magnitudes(read(model, layer), _zero(model, layer))


def follows(model: Model, layer: Layer, pattern: Pattern) -> bool:
    """Whether the weight as the node reads it has a pattern along the axis of the sum."""
    assert layer.axis is not None
    return pattern.follows(read(model, layer) != _zero(model, layer), layer.axis)


def _zero(model: Model, layer: Layer) -> Values | int:
    """What the weight as the node reads it holds for zero: its zero point, where the node is given one itself."""
    direct = model.root(model.nodes[layer.index].input[layer.position]) == layer.weight
    return layer.origin.zero if direct and layer.origin is not None else 0


def measured(model: Model, layer: Layer, pattern: Pattern) -> Layer:
    """The layer with what its weight is now."""
    if layer.axis is None:
        return layer
    value = real(model, layer)
    sparse, reasons = pattern.follows(value, layer.axis), layer.reasons
    across = [a for a in range(value.ndim) if a != layer.axis and not sparse and pattern.follows(value, a)]
    if across:
        text = f"its zeros lie along axis {across[0]}, and the sum runs along axis {layer.axis}"
        reasons = (*reasons, Reason(text, layer.node))
    kept = 1.0
    if not sparse:
        whole = float(value.sum(dtype=np.float64))
        kept = float((value * pattern.kept(value, layer.axis)).sum(dtype=np.float64)) / whole if whole > 0 else 1.0
    return replace(layer, sparse=sparse, reasons=reasons, kept=kept)


def magnitudes(value: Values, zero: Values | int = 0) -> Values:
    """How far numbers of any type are from what stands for zero, float32."""
    found = np.asarray(value, np.float32)
    if np.any(zero):
        found = found - np.asarray(zero, np.float32)
    return np.abs(found)


def _multiplied(relation: Relation, position: int) -> bool:
    """Whether an input is a factor of a product: it has a dim that the product sums over."""
    axes = relation.inputs[position] if position < len(relation.inputs) else None
    summed = _summed(relation)
    return axes is not None and any(d in summed for axis in axes for d in axis.dims)


def _summed(relation: Relation) -> set[int]:
    """Dims of products that no output has."""
    kept = {d for axes in relation.outputs for axis in axes or () for d in axis.dims}
    return {d for product in relation.macs for d in product} - kept


def _layer(
    model: Model, net: Web, relation: Relation, index: int, position: int, half: bool, pattern: Pattern
) -> Layer:
    axes = relation.inputs[position] or ()
    summed = _summed(relation)
    along = [a for a, axis in enumerate(axes) if axis.dims and set(axis.dims) <= summed and not _window(relation, axis)]
    name = model.nodes[index].input[position]
    held = _held_as(model, name)
    reasons = _structure(model, relation, index, position, along)
    reasons += _type(held, half)
    sums = outputs = 0
    if len(along) == 1:
        sums = prod(relation.dims[d].size for d in axes[along[0]].dims)
        outputs = prod(
            relation.dims[d].size for a, axis in enumerate(axes) if a not in along and not _window(relation, axis)
            for d in axis.dims
        )  # fmt: skip
        reasons += _widths(sums, outputs, held in EIGHT_BITS, pattern)
    found, lost = None, None
    try:
        found = origin(model, net.relations, index, position)
    except Lost as why:
        lost = why.reason
    axis = along[0] if len(along) == 1 else None
    weight = model.root(name) if found is None else found.source
    elements = prod(relation.dims[d].size for a in axes for d in a.dims)
    return Layer(
        index,
        position,
        node_name(model, index),
        weight,
        axis,
        sums,
        outputs,
        elements,
        held,
        tuple(Reason(text, node_name(model, index)) for text in reasons),
        found,
        lost,
    )


def _window(relation: Relation, axis: AxisMap) -> bool:
    """Whether an axis is of positions (a kernel window) and not of channels."""
    return all(relation.dims[d].pinned is not None for d in axis.dims)


def _structure(model: Model, relation: Relation, index: int, position: int, along: list[int]) -> list[str]:
    reasons = []
    if len(relation.macs) > 1:
        reasons.append("it makes several products (a recurrent or fused layer)")
    others = {
        d
        for i, axes in enumerate(relation.inputs)
        if axes is not None and i < len(model.nodes[index].input) and model.nodes[index].input[i] not in
        model.constant_names
        for axis in axes
        for d in axis.dims
    }  # fmt: skip
    own = {d for axis in relation.inputs[position] or () for d in axis.dims}
    kept = {d for axes in relation.outputs for axis in axes or () for d in axis.dims}
    groups = prod(relation.dims[d].size for d in own & others & kept)
    if groups > 1:
        reasons.append(f"it has {groups} groups")
    if not own & others:
        reasons.append("both factors are constants")
    if len(along) != 1:
        reasons.append(f"it sums along {len(along)} axes of the weight")
    return reasons


def _type(kind: int, half: bool) -> list[str]:
    if kind in _HALVES + EIGHT_BITS or (half and kind == TensorProto.FLOAT):
        return []
    name = helper.tensor_dtype_to_np_dtype(kind).name if kind != TensorProto.UNDEFINED else "unknown"
    return [f"its type is {name}, and sparse kernels want float16, bfloat16 or 8 bits"]


def _widths(sums: int, outputs: int, eight_bits: bool, pattern: Pattern) -> list[str]:
    if why := pattern.lacks("tensorrt"):
        return [why]
    wanted = 32 if eight_bits else 16
    reasons = []
    if sums % wanted:
        reasons.append(f"it sums over {sums}, no multiple of {wanted}")
    if outputs % 8:
        reasons.append(f"it has {outputs} outputs, no multiple of 8")
    return reasons


def _held_as(model: Model, name: str) -> int:
    """The type that a constant is stored in: the narrowest of the weights that it is computed from."""
    root = model.root(name)
    if root in model.sources:
        return model.sources[root].dtype
    node = model.nodes[model.producer[root]]
    kinds = [_held_as(model, n) for n in node.input if n]
    stored = [k for k in kinds if k in EIGHT_BITS] or kinds
    return stored[0] if stored else TensorProto.UNDEFINED
