"""Which weights follow a 2:4 pattern, and which TensorRT could read by its sparse kernels.

In 2:4 (Mishra et al., Accelerating Sparse Deep Neural Networks, 2021) at least two of every four consecutive weights
along the axis that a product sums over are zero: input channels of a convolution, for each output channel and kernel
position; K of a matrix product. What TensorRT asks for beside: a constant weight, one group, one axis of summation, and
a type that sparse tensor cores take. Widths are a rule of thumb: outputs a multiple of 8, the sum of 16, of 32 for 8
bits. Whether a sparse kernel is faster is decided by timing on the GPU (gains from about 256 channels up).

Where the sum runs is read off each node's relation; no operator is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import TensorProto, helper

from graphprune.model import Model, node_name
from graphprune.relation import AxisMap, Relation, Values
from graphprune.run import fold
from graphprune.shapes import Witness
from graphprune.web import Web

N, M = 2, 4
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_BYTES = (TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)


@dataclass(frozen=True)
class Layer:
    """A product of an activation with a constant.

    Attributes:
        node: name of the node.
        weight: name of the weight that it reads.
        axis: of the weight, along which the product sums; None where it sums along several or none alone.
        sums, outputs: how many elements one sum has along that axis, and how many outputs there are.
        sparse: whether the weight follows 2:4 along the axis.
        reasons: why TensorRT's sparse kernels are out of the question; none where the layer is eligible.
    """

    node: str
    weight: str
    axis: int | None
    sums: int
    outputs: int
    sparse: bool
    reasons: tuple[str, ...]

    @property
    def eligible(self) -> bool:
        """Whether the layer's shape, groups and type allow a sparse kernel, once its weight follows 2:4."""
        return not self.reasons


def layers(model: Model, witness: Witness, net: Web, half: bool = False) -> list[Layer]:
    """Every product of an activation with a constant, in the order of the nodes.

    Args:
        model: in canonical form.
        witness: its sizes and types.
        net: its web.
        half: judge float32 weights as the float16 that they will be converted to.
    """
    places = [
        (index, position)
        for index, relation in enumerate(net.relations)
        if relation is not None and relation.macs
        for position, name in enumerate(model.nodes[index].input)
        if name in model.constant_names and _multiplied(relation, position)
    ]
    computed = [model.nodes[i].input[p] for i, p in places if model.root(model.nodes[i].input[p]) not in model.sources]
    folded = fold(model, list(dict.fromkeys(computed)))
    return [_layer(model, witness, net.relations[i], i, p, folded, half) for i, p in places]


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
    model: Model,
    witness: Witness,
    relation: Relation | None,
    index: int,
    position: int,
    folded: dict[str, Values],
    half: bool,
) -> Layer:
    assert relation is not None
    axes = relation.inputs[position] or ()
    summed = _summed(relation)
    along = [a for a, axis in enumerate(axes) if axis.dims and set(axis.dims) <= summed and not _window(relation, axis)]
    name = model.nodes[index].input[position]
    root = model.root(name)
    reasons = _structure(model, relation, index, position, along)
    reasons += _type(_held_as(model, name), half)
    sums = outputs = 0
    sparse = False
    if len(along) == 1:
        sums = prod(relation.dims[d].size for d in axes[along[0]].dims)
        outputs = prod(
            relation.dims[d].size for a, axis in enumerate(axes) if a not in along and not _window(relation, axis)
            for d in axis.dims
        )  # fmt: skip
        value = folded[name] if name in folded else model.array(root)
        sparse = follows(value, along[0])
        reasons += _widths(sums, outputs, _held_as(model, name) in _BYTES)
        across = [a for a in range(value.ndim) if a != along[0] and not sparse and follows(value, a)]
        if across:
            reasons.append(f"its zeros lie along axis {across[0]}, and the sum runs along axis {along[0]}")
    return Layer(
        node_name(model, index), root, along[0] if len(along) == 1 else None, sums, outputs, sparse, tuple(reasons)
    )


def _window(relation: Relation, axis: AxisMap) -> bool:
    """Whether an axis is of positions (a kernel window) and not of channels."""
    return any(relation.dims[d].pinned is not None for d in axis.dims)


def _structure(model: Model, relation: Relation, index: int, position: int, along: list[int]) -> list[str]:
    reasons = []
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
    if len(relation.macs) > 1:
        reasons.append("it makes several products (a recurrent or fused layer)")
    return reasons


def _type(kind: int, half: bool) -> list[str]:
    if kind in _HALVES + _BYTES or (half and kind == TensorProto.FLOAT):
        return []
    name = helper.tensor_dtype_to_np_dtype(kind).name if kind != TensorProto.UNDEFINED else "unknown"
    return [f"its type is {name}, and sparse kernels want float16, bfloat16 or 8 bits"]


def _widths(sums: int, outputs: int, eight_bits: bool) -> list[str]:
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
    stored = [k for k in kinds if k in _BYTES] or kinds
    return stored[0] if stored else TensorProto.UNDEFINED


def follows(value: Values, axis: int, n: int = N, m: int = M) -> bool:
    """Whether at most ``n`` of every ``m`` consecutive elements along an axis differ from zero.

    A last, incomplete block counts as if zeros filled it up.
    """
    size = value.shape[axis]
    if size < m:
        return False
    nonzero = np.moveaxis(value != 0, axis, -1)
    padded = np.pad(nonzero, [(0, 0)] * (value.ndim - 1) + [(0, -size % m)])
    blocks = padded.reshape(*padded.shape[:-1], -1, m)
    return bool((np.count_nonzero(blocks, axis=-1) <= n).all())
