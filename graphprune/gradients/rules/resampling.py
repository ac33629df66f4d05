"""Operators that are linear along each axis apart: resizing and average pooling.

Such an operator is a product with one matrix for each axis, and its gradient one with their transposes. The matrix of
an axis is what the operator itself makes of the identity, so that every mode and every rounding is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import Term


def along(g: Term, matrices: Mapping[int, Term]) -> Term:
    """Products with a matrix [outputs, inputs] for each axis, from outputs back to inputs."""
    rank = g.rank
    assert rank is not None
    for axis, matrix in matrices.items():
        if axis == rank - 2:
            g = matrix.transpose([1, 0]) @ g
            continue
        order = list(range(rank))
        order[axis], order[-1] = order[-1], order[axis]
        dims = g.dims
        g = Term(g.tape, g.name, g.kind, dims).transpose(order) @ matrix
        g = Term(g.tape, g.name, g.kind, None).transpose(order)
    return g


def identity(x: Term, axis: int) -> Term:
    """The identity of the size of an axis."""
    size = x.size(axis)
    shape = x.tape.join([size, size])
    empty = numpy_helper.from_array(np.zeros(1, helper.tensor_dtype_to_np_dtype(x.kind)))
    return x.tape.op("EyeLike", x.tape.op("ConstantOfShape", shape, kind=x.kind, dims=(None, None), value=empty))


@rule("AveragePool")
def _average_pool(b: Back) -> Sequence[Gradient]:
    """An average over a window is that over its rows, of those over its columns."""
    return [unpooled(b, b.g0)]


def unpooled(b: Back, g: Term, **changed: Any) -> Term:
    """The gradient of a pool that is linear; its attributes are the node's, but for some."""
    x, rank = b.x[0], rank_of(b)
    matrices = {}
    for k in range(rank - 2):
        own = {**b.attributes, **changed}
        own |= {n: [own[n][k]] for n in ("kernel_shape", "strides", "dilations") if n in own}
        if "pads" in own:
            own["pads"] = [own["pads"][k], own["pads"][k + rank - 2]]
        found = b.tape.op(b.node.op_type, identity(x, k + 2).unsqueeze([0]), **own)  # [1, inputs, outputs]
        matrices[k + 2] = Term(b.tape, found.name, x.kind, (1, None, None)).squeeze([0]).transpose([1, 0])
    return Term(b.tape, along(g, matrices).name, x.kind, x.dims)


@rule("Resize")
def _resize(b: Back) -> Sequence[Gradient]:
    x, rank = b.x[0], rank_of(b)
    policy = b.attr("keep_aspect_ratio_policy", "stretch")
    if b.has(3) and policy != "stretch":
        raise NoGradientError(f"keep_aspect_ratio_policy {policy} has no rule")
    axes = [a % rank for a in b.attr("axes") or range(rank)]
    held = {n: v for n, v in b.attributes.items() if n not in ("axes", "keep_aspect_ratio_policy")}
    held["extrapolation_value"] = 0.0  # what is extrapolated is a constant
    matrices = {axis: _matrix(b, x, axis, place, len(axes), held) for place, axis in _resized(b, axes)}
    return [Term(b.tape, along(b.g0, matrices).name, x.kind, x.dims)]


def _resized(b: Back, axes: Sequence[int]) -> list[tuple[int, int]]:
    """Axes that may have another length or another grid behind, each with its place in scales, sizes and roi."""
    scales = b.value(2)
    found = []
    for place, axis in enumerate(axes):
        x, y = ((t.dims[axis] if t.dims is not None else None) for t in (b.x[0], b.y[0]))
        stays = scales[place] == 1 if scales is not None and scales.size else x is not None and x == y
        if not stays or b.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
            found.append((place, axis))
    return found


def _matrix(b: Back, x: Term, axis: int, place: int, count: int, held: Mapping[str, Any]) -> Term:
    """What an axis of the output takes of the input's, [outputs, inputs]."""
    tape = b.tape
    ones = [1.0, 1.0, 1.0]
    roi = scales = sizes = None
    if b.has(1) and b.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        region = b.raw[1].cast(TensorProto.FLOAT)
        start, end = (region.take([k]) for k in (place, place + count))
        zeros = tape.constant([0.0, 0.0, 0.0], TensorProto.FLOAT)
        roi = tape.join([zeros, start, tape.constant(ones, TensorProto.FLOAT), end])
    if b.has(3):
        size = b.y[0].size(axis)
        sizes = tape.join([tape.constant([1, 1]), x.size(axis), size])
    elif (known := b.value(2)) is not None:
        scales = tape.constant([*ones, float(known[place])], TensorProto.FLOAT)
    else:
        scales = tape.join([tape.constant(ones, TensorProto.FLOAT), b.raw[2].take([place])])
    eye = identity(x, axis).unsqueeze([0, 1])
    found = tape.op("Resize", eye, roi, scales, sizes, **held)  # [1, 1, inputs, outputs]
    return Term(tape, found.name, x.kind, (1, 1, None, None)).squeeze([0, 1]).transpose([1, 0])


def rank_of(b: Back) -> int:
    """How many axes the first input has.

    Raises:
        NoGradientError: it is not known.
    """
    rank = next((t.rank for t in (b.x[0], b.y[0]) if t.rank is not None), None)
    if rank is None or b.g0.rank is None:
        raise NoGradientError("the rank of its input is not known")
    return rank
