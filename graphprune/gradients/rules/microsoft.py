"""Operators that ONNX Runtime's optimizers make of several (domain com.microsoft), attention apart.

Those of one variable have rules; what they are made of is written out for the others, and differentiated through.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.expansion import body
from graphprune.gradients.rules.elementwise import gelu, gelu_by_tanh
from graphprune.gradients.table import Back, Gradient, rule, stops
from graphprune.gradients.terms import Term

MICROSOFT = "com.microsoft"

stops(
    "its weights are packed in an order of their own",
    "GatherBlockQuantized MatMulBnb4 MatMulFpQ4",
    MICROSOFT,
)
stops("it generates text with graphs that it holds", "BeamSearch GreedySearch Sampling WhisperBeamSearch", MICROSOFT)


@rule("BiasGelu", "FastGelu", "Gelu", domain=MICROSOFT)
def _gelus(b: Back) -> Sequence[Gradient]:
    x = b.x[0] + b.x[1] if b.has(1) else b.x[0]
    g = b.g0 * (gelu_by_tanh if b.node.op_type == "FastGelu" else gelu)(x)
    return [g, g.sum_to(b.x[1]) if b.needs(1) else None]


@rule("QuickGelu", domain=MICROSOFT)
def _quick_gelu(b: Back) -> Sequence[Gradient]:
    """Of ``x * sigmoid(alpha * x)``."""
    alpha = b.attr("alpha", 1.702)
    gate = (b.x[0] * alpha).unary("Sigmoid")
    return [b.g0 * (gate + b.y[0] * (1 - gate) * alpha)]


@rule("BiasAdd", domain=MICROSOFT)
def _bias_add(b: Back) -> Sequence[Gradient]:
    return [b.g0.sum_to(x) if b.needs(i) else None for i, x in enumerate(b.x)]


@body("BiasSplitGelu", domain=MICROSOFT)
def _bias_split_gelu(b: Back) -> Sequence[Term]:
    left, right = halves(b.raw[0] + b.raw[1])
    return [left * (right * 0.5) * ((right * 0.5**0.5).unary("Erf") + 1)]


def halves(x: Term) -> tuple[Term, ...]:
    """Both halves of the last axis."""
    size = x.dims[-1] if x.dims is not None else None
    dims = (*x.dims[:-1], size // 2) if x.dims is not None and isinstance(size, int) else None
    return x.tape.ops("Split", x, kinds=(x.kind, x.kind), dims=(dims, dims), axis=-1, num_outputs=2)


@body("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def _fused_matmul(b: Back) -> Sequence[Term] | None:
    sides = []
    for x, name in zip(b.raw, ("A", "B"), strict=False):
        if b.attr(f"transBatch{name}", 0):
            raise NoGradientError("it moves a batch axis to the end")
        if b.attr(f"trans{name}", 0) and x.rank is None:
            return None
        sides.append(x.swapped() if b.attr(f"trans{name}", 0) and x.rank != 1 else x)
    product, alpha = sides[0] @ sides[1], b.attr("alpha", 1.0)
    return [product * alpha if alpha != 1 else product]


def activated(x: Term, b: Back) -> Term:
    """A result behind the activation that an attribute names."""
    name = b.attr("activation", "")
    if not name:
        return x
    named = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",)}.get(name, ())
    values = {n: b.attr(f"activation_{n}", b.attr(f"{name.lower()}_{n}")) for n in named}
    return x.unary(name, **values)


@body("FusedGemm", domain=MICROSOFT)
def _fused_gemm(b: Back) -> Sequence[Term]:
    kept = {n: b.attr(n) for n in ("alpha", "beta", "transA", "transB")}
    return [activated(b.tape.op("Gemm", *(t if t.name else None for t in b.raw), **kept), b)]


@body("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_norm(b: Back) -> Sequence[Term]:
    """A sum, and a norm over its last axis; statistics are not given out."""
    centred = b.node.op_type == "SkipLayerNormalization"
    if any(b.node.output[1:3]):
        raise NoGradientError("it gives its statistics")
    total, bias = b.raw[0] + b.raw[1], 4 if centred else 3
    total = total + b.raw[bias] if b.has(bias) else total
    inputs = [total, b.raw[2], *([b.raw[3]] if centred and b.has(3) else [])]
    op = "LayerNormalization" if centred else "SimplifiedLayerNormalization"
    y = b.tape.op(op, *inputs, dims=total.dims, axis=-1, epsilon=b.attr("epsilon", 1e-12))
    return [y, total, total, total]


@body("EmbedLayerNormalization", domain=MICROSOFT)
def _embed(b: Back) -> Sequence[Term]:
    """Rows of up to three tables are added and normalised; the second output counts the positions of a mask."""
    ids, tape = b.raw[0], b.tape
    total = b.raw[2].take(ids)
    places = b.raw[3].take(b.raw[8]) if b.has(8) else b.raw[3].cut(tape.constant([0]), ids.size(1), 0)
    total = total + places
    if b.has(4) and b.has(1):
        total = total + b.raw[4].take(b.raw[1])
    y = tape.op("LayerNormalization", total, b.raw[5], b.raw[6], axis=-1, epsilon=b.attr("epsilon", 1e-12))
    ones = b.raw[7] if b.has(7) else ids.zeros(TensorProto.INT32)
    return [y, ones.sum([1], keep=False), total]


@body("GroupNorm", domain=MICROSOFT)
def _group_norm(b: Back) -> Sequence[Term] | None:
    """Group normalization, by default of channels in the last axis, and an activation."""
    x, groups, kind = b.raw[0], b.attr("groups"), b.raw[1].kind
    if x.rank is None:
        return None
    last = bool(b.attr("channels_last", 1))
    first = x.cast(kind).transpose([0, x.rank - 1, *range(1, x.rank - 1)]) if last else x.cast(kind)
    ones = [b.tape.constant([v] * groups, kind) for v in (1.0, 0.0)]
    rows = first.reshape([0, groups, -1])
    z = b.tape.op("InstanceNormalization", rows, *ones, epsilon=b.attr("epsilon", 1e-5)).shaped_as(first)
    z = Term(b.tape, z.name, kind, first.dims)
    places = list(range(1, x.rank - 1))
    y = z * b.raw[1].unsqueeze(places) + b.raw[2].unsqueeze(places)
    y = y * y.unary("Sigmoid") if b.attr("activation", 0) else y
    return [(y.transpose([0, *range(2, x.rank), 1]) if last else y).cast(x.kind)]


@body("MatMulNBits", domain=MICROSOFT)
def _few_bits(b: Back) -> Sequence[Term] | None:
    """A product with weights of a few bits in blocks, each with a scale and a zero point."""
    if b.has(4):
        raise NoGradientError("its blocks are in an order of their own")
    a, packed, scales, bits = b.raw[0], b.raw[1], b.raw[2], b.attr("bits", 4)
    inner, outer, block = b.attr("K"), b.attr("N"), b.attr("block_size")
    many = -(-inner // block)
    shape = [outer, many, 1]
    if b.has(3) and b.raw[3].kind == TensorProto.UINT8:
        zeros = _unpacked(b.raw[3].reshape([outer, -1]), bits).cut(0, many, 1).reshape(shape)
    elif b.has(3):
        zeros = b.raw[3].reshape(shape)
    else:
        zeros = b.tape.constant(2.0 ** (bits - 1), a.kind)
    numbers = _unpacked(packed.reshape([outer, many, -1]), bits).cast(a.kind)
    weights = ((numbers - zeros.cast(a.kind)) * scales.reshape(shape)).reshape([outer, many * block])
    if many * block != inner:
        weights = weights.cut(0, inner, 1)
    weights = Term(b.tape, weights.name, a.kind, (outer, inner))
    product = a @ weights.transpose([1, 0])
    return [product + b.raw[5] if b.has(5) else product]


def _unpacked(packed: Term, bits: int) -> Term:
    """Numbers of a few bits that share bytes, the lowest first, along the last axis."""
    if bits == 8:
        return packed
    tape, kind = packed.tape, TensorProto.UINT8
    shifts = tape.constant(np.arange(0, 8, bits), kind)
    moved = tape.op("BitShift", packed.unsqueeze([-1]), shifts, direction="RIGHT")
    single = tape.op("BitwiseAnd", moved, tape.constant(2**bits - 1, kind))
    return single.reshape([0] * ((packed.rank or 1) - 1) + [-1])
