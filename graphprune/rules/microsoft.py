"""The table of operators of com.microsoft: those that ONNX Runtime's optimizers, quantisers and exporters emit."""

from __future__ import annotations

from dataclasses import replace

from graphprune.relation import Relation
from graphprune.rules import attention as a
from graphprune.rules import computing as c
from graphprune.rules import fused as f
from graphprune.rules import quantised as q
from graphprune.rules import statistics as s
from graphprune.rules import windows as w
from graphprune.rules.node import NodeView, Rule, described
from graphprune.rules.table import PINNED as ONNX_PINNED
from graphprune.rules.table import TABLE as ONNX
from graphprune.rules.table import never

_SHARED = "DequantizeLinear GatherND Gelu GridSample QuantizeLinear QLinearConv Range SwiGLU Trilu Unique"
"""Operators that ONNX has too, with the same meaning."""

_PINNED = {
    "its blocks are packed along the axis that is looked up": "GatherBlockQuantized QMoE",
    "its weights are packed in an order of their own": "MatMulBnb4 MatMulFpQ4",
    "it generates text with graphs that it holds": "BeamSearch GreedySearch Sampling WhisperBeamSearch",
    "its layout is channels last, which no exporter writes": """
        GroupNorm NhwcConv NhwcFusedConv NhwcMaxPool SkipGroupNorm
    """,
}


def newest(rule: Rule) -> Rule:
    """A rule of ONNX at its newest version, whatever the version of this domain."""

    def shared(node: NodeView) -> Relation:
        return rule(replace(node, opset=99))

    return described(shared, rule.__doc__ or "")


_ADD = {0: 2, 3: 5}
PINNED = {op: reason for reason, ops in _PINNED.items() for op in ops.split()}
PINNED |= {op: ONNX_PINNED[op] for op in _SHARED.split() if op in ONNX_PINNED}
"""For each operator that pins what it touches, why."""

TABLE: dict[str, Rule] = {
    **{op: newest(ONNX[op]) for op in _SHARED.split()},
    **{op: never(reason) for op, reason in PINNED.items()},
    "Attention": a.projected,
    "BiasAdd": c.elementwise("+"),
    "BiasGelu": c.elementwise("+"),
    "ConvTransposeWithDynamicPads": w.convolution(
        "n (g i) !*x, (g i) o !*k, _, (g o) -> n (g o) !*y", "n g i o *k *x", "0*1+3", w.unknown
    ),
    "DynamicQuantizeLSTM": q.rounding(q.recurrent),
    "DynamicQuantizeMatMul": q.rounding(q.product(1, (2, 3), 4, {1: 3, 2: None, 3: None}, dynamic=True)),
    "EmbedLayerNormalization": f.embedding_norm,
    "FastGelu": c.elementwise("+"),
    "FusedConv": f.fused_conv,
    "FusedGemm": f.fused_gemm,
    "FusedMatMul": f.fused_matmul,
    "GroupQueryAttention": a.grouped_query,
    "MatMulIntegerToFloat": q.product(1, (3, 5), 6, {1: 5, 3: None, 5: None}),
    "MatMulNBits": q.blocks_of_bits,
    "MoE": f.experts,
    "MultiHeadAttention": a.multi_head,
    "QAttention": q.rounding(a.projected_quantised),
    "QGemm": q.rounding(q.product(3, (4, 5), 6, {3: 5, 4: None, 5: None})),
    "QLinearAdd": q.rounding(q.elementwise((0, 3), "0+3", _ADD)),
    "QLinearAveragePool": q.rounding(q.pool),
    "QLinearConcat": q.rounding(q.joined),
    "QLinearGlobalAveragePool": q.rounding(q.pool),
    "QLinearLeakyRelu": q.rounding(q.elementwise((0,), "0", {})),
    "QLinearMul": q.rounding(q.elementwise((0, 3), "0*3", _ADD)),
    "QLinearSigmoid": q.rounding(q.elementwise((0,), "", {})),
    "QLinearSoftmax": q.rounding(c.along_axis(-1)),
    "QuickGelu": c.elementwise("0"),
    "RelativePositionBias": a.relative_bias,
    "RotaryEmbedding": a.rotary_of_onnxruntime,
    "SimplifiedLayerNormalization": s.layer_normalization(centred=False),
    "SkipLayerNormalization": f.skip_norm(centred=True),
    "SkipSimplifiedLayerNormalization": f.skip_norm(centred=False),
    "TransposeMatMul": f.fused_matmul,
}
