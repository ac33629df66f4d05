"""Rounding to a grid, and back.

Rounding has no derivative to follow; as is usual in training of quantised models, it is taken to be the identity within
the range of the integer, and constant outside (Bengio, Léonard, Courville, Estimating or Propagating Gradients Through
Stochastic Neurons, 2013). The integers between both carry the gradient of the float that they stand for. What is
computed on integers themselves stops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import INTEGERS, Back, Barred, Gradient, rule, stops
from graphprune.gradients.terms import Term

MICROSOFT = "com.microsoft"
_LARGEST = {"FLOAT8E4M3FN": 448, "FLOAT8E4M3FNUZ": 240, "FLOAT8E5M2": 57344, "FLOAT8E5M2FNUZ": 57344, "FLOAT4E2M1": 6}
_BITS = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4}


def limits(kind: int) -> tuple[float, float]:
    """The least and the greatest number of a type."""
    name = TensorProto.DataType.Name(kind)
    if name in _BITS:
        many = 2 ** _BITS[name]
        return (-(many // 2), many // 2 - 1) if name[0] == "I" else (0, many - 1)
    if kind in INTEGERS:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    found = float(_LARGEST.get(name, np.inf))
    return -found, found


def _spread(b: Back, each: Term) -> Term:
    """Numbers for the whole tensor, its slices or its blocks, so that they broadcast to it."""
    x = b.x[0]
    if each.rank == 0 or (each.dims is not None and all(d == 1 for d in each.dims)):
        return each.reshape([]) if each.rank else each
    if b.attr("block_size", 0):
        ones = x.filled(1, TensorProto.INT8)
        options = {name: b.attr(name) for name in ("axis", "block_size")}
        return b.tape.op("DequantizeLinear", ones, each, kind=each.kind, dims=x.dims, **options)
    if each.rank is None or x.rank is None:
        raise NoGradientError("it is not known whether it has one scale or several")
    axis = b.attr("axis", 1) % x.rank
    return each.unsqueeze([k for k in range(x.rank) if k != axis])


def _gathered(b: Back, g: Term) -> Term:
    """Summed over what shares a scale."""
    scale, x = b.x[1], b.x[0]
    if scale.rank == 0 or (scale.dims is not None and all(d == 1 for d in scale.dims)):
        return b.tape.op("ReduceSum", g, dims=(), keepdims=0).shaped_as(scale)
    if scale.rank is None or x.rank is None:
        raise NoGradientError("it is not known whether it has one scale or several")
    axis, block = b.attr("axis", 1) % x.rank, b.attr("block_size", 0)
    if not block:
        return g.sum_to(_spread(b, scale)).shaped_as(scale)
    short = b.tape.constant([block]) * scale.size(axis) - x.size(axis)
    whole = g.padded([axis], [b.tape.constant([0])], [short], None)
    sizes = [x.size(k) for k in range(x.rank)]
    sizes[axis : axis + 1] = [scale.size(axis), b.tape.constant([block])]
    return whole.reshape(b.tape.join(sizes)).sum([axis + 1], keep=False)


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain=MICROSOFT)
def _quantise(b: Back) -> Sequence[Gradient]:
    x, scale = b.x[0], _spread(b, b.x[1])
    place = (x / scale).unary("Round")
    if b.has(2):
        place = place + _spread(b, b.raw[2].cast(x.kind))
    low, high = limits(b.y[0].kind)
    inside = ((place >= low) & (place <= high)).kept(b.g0 / scale)
    return [inside, Barred("how rounding follows its scale is not told") if b.needs(1) else None]


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain=MICROSOFT)
def _dequantise(b: Back) -> Sequence[Gradient]:
    """Of ``(x - zero) * scale``."""
    first = b.g0 * _spread(b, b.x[1]) if b.needs(0) else None
    if not b.needs(1):
        return [first]
    ones = b.x[1].filled(1)
    rest = [b.raw[2]] if b.has(2) else []
    options = {name: b.attr(name) for name in ("axis", "block_size")}
    inner = b.tape.op(
        "DequantizeLinear",
        *(b.raw[0], ones, *rest),
        kind=b.g0.kind,
        dims=b.x[0].dims,
        domain=b.node.domain,
        **options,
    )
    return [first, _gathered(b, b.g0 * inner)]


stops(
    "it computes on quantised numbers",
    "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul",
)
stops(
    "it computes on quantised numbers",
    """
    DynamicQuantizeLSTM DynamicQuantizeMatMul MatMulInteger16 MatMulIntegerToFloat QAttention QEmbedLayerNormalization
    QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul
    QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QMoE
    """,
    MICROSOFT,
)
