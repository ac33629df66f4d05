"""The table of ONNX's own operators: a line each, alphabetical within a kind. Other domains have tables of their own.

A pattern says which axes go together (see ``graphprune.relation.notation``), ``zero`` when removed elements of the
output are zero (see ``Relation``), ``macs`` what the operator costs. Operators that one pattern cannot describe name a
function.
"""

from __future__ import annotations

from dataclasses import replace

from graphprune.relation import Relation
from graphprune.relation.binding import bind, pinned
from graphprune.relation.notation import Line, read
from graphprune.rules import attention as a
from graphprune.rules import choosing as ch
from graphprune.rules import computing as c
from graphprune.rules import cutting as k
from graphprune.rules import moving as m
from graphprune.rules import placing as p
from graphprune.rules import quantised as q
from graphprune.rules import statistics as s
from graphprune.rules import windows as w
from graphprune.rules.node import NodeView, Rule, described

_UNARY_ZERO_TO_ZERO = """
    Abs Asin Asinh Atan Atanh Ceil Celu Elu Erf Floor Gelu HardSwish Identity IsInf IsNaN LeakyRelu Mish Relu Round
    Selu Shrink Sign Sin Sinh Softsign Swish Tan Tanh ThresholdedRelu BitCast
"""
_UNARY = "Acos Acosh BitwiseNot Cos Cosh Exp HardSigmoid Not Sigmoid Softplus"
_MANY = "BitShift BitwiseOr BitwiseXor Xor"
_COMPARING = "Greater GreaterOrEqual Less LessOrEqual"
_REDUCE_SUM = "ReduceL1"
_REDUCE_SQUARES = "ReduceL2 ReduceSumSquare"
_REDUCE_ORDER = "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd"


_PINNED = {
    "it makes its elements from sizes or by chance": """
        Bernoulli Constant EyeLike Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    """,
    "its elements are counted or chosen by values that the model computes": """
        MaxUnpool NonMaxSuppression NonZero TfIdfVectorizer Unique
    """,
    "each result needs all elements of its input": """
        AffineGrid BlackmanWindow Det HammingWindow HannWindow MelWeightMatrix STFT
    """,
    "its input is text or an encoded image": """
        ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit
    """,
    "it works on sequences or optional values, whose tensors have no fixed shape": """
        ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty
        SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence
    """,
    "it computes a loss, which is a matter of training": """
        NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss
    """,
    "its bodies are laid open before any rule is asked, but those of a Scan of opset 8": "If Loop Scan",
}
"""Operators that pin what they touch, by the reason."""

PINNED = {op: reason for reason, ops in _PINNED.items() for op in ops.split()}
"""For each operator that pins what it touches, why."""


def never(reason: str) -> Rule:
    """The rule of an operator that pins what it touches."""

    def rule(node: NodeView) -> Relation:
        return pinned(node.inputs, node.outputs, f"{node.op}: {reason}")

    return described(rule, f"pins: {reason}")


def line(
    pattern: str,
    zero: str = "",
    macs: str = "",
    *,
    reason: str = "a window slides over it",
) -> Rule:
    """The rule of an operator that one pattern describes; the pattern is read here and now, so that no slip waits."""
    whole = Line(pattern, zero=zero, macs=macs)
    read(whole)

    def rule(node: NodeView) -> Relation:
        return bind(whole, node.inputs, node.outputs, reason=reason)

    return described(rule, f"``{pattern}``")


def only_first(rule: Rule) -> Rule:
    """The rule over input 0 alone: the other inputs are settings without axes of their own."""

    def first(node: NodeView) -> Relation:
        return rule(replace(node, inputs=(node.inputs[0], *[None] * (len(node.inputs) - 1))))

    return described(first, rule.__doc__ or "")


_CONV = w.convolution("n (g i) !*x, (g o) i !*k, (g o) -> n (g o) !*y", "n g i o *k *y")
_CONV_TRANSPOSE = w.convolution("n (g i) !*x, (g i) o !*k, (g o) -> n (g o) !*y", "n g i o *k *x", geometry=w.backward)
_MATMUL = "k, k -> | k, ... k o -> ... o | ... m k, k -> ... m | ... m k, ... k o -> ... m o"
_POOL = line("n c !*x -> n c !*y", "0")

TABLE: dict[str, Rule] = {
    **{op: only_first(c.elementwise("0")) for op in _UNARY_ZERO_TO_ZERO.split()},
    **{op: c.elementwise() for op in (_UNARY + " " + _MANY).split()},
    **{op: c.comparing(c.elementwise()) for op in _COMPARING.split()},
    **{op: s.reduce("sum") for op in _REDUCE_SUM.split()},
    **{op: s.isotropic(s.reduce("sum")) for op in _REDUCE_SQUARES.split()},
    **{op: s.reduce("order") for op in _REDUCE_ORDER.split()},
    **{op: never(reason) for op, reason in PINNED.items()},
    "Add": c.linear(c.homogeneous(c.elementwise("+"), {}, joint=True)),
    "And": c.elementwise("0*1"),
    "ArgMax": c.comparing(ch.extreme),
    "ArgMin": c.comparing(ch.extreme),
    "Attention": a.attention,
    "AveragePool": c.linear(_POOL),
    "BatchNormalization": s.batch_normalization,
    "BitwiseAnd": c.elementwise("0*1"),
    "Cast": c.cast,
    "CastLike": c.cast_like,
    "CausalConvWithState": line("b c !s, c 1 !k, c, b c !p -> b c !s, b c !p", "0*1+1*3+2;0+3", "b c s k"),
    "CenterCropPad": p.resized,
    "Clip": c.clip,
    "Col2Im": p.columns,
    "Compress": p.compress,
    "Concat": c.linear(k.concat),
    "ConstantOfShape": m.constant_of_shape,
    "Conv": _CONV,
    "ConvInteger": q.convolution(1, {3: "(g o)"}, None, {1: 3, 3: None}),
    "ConvTranspose": _CONV_TRANSPOSE,
    "CumProd": c.along_axis(0, zero="0"),
    "CumSum": c.linear(c.along_axis(0, zero="0")),
    "DFT": p.spectrum,
    "DeformConv": p.deformed,
    "DepthToSpace": c.linear(m.depth_to_space),
    "DequantizeLinear": q.linear_quantiser,
    "Div": c.linear(c.homogeneous(c.elementwise("0/1"), {0: 1, 1: -1})),
    "Dropout": c.dropout,
    "DynamicQuantizeLinear": q.rounding(q.dynamic_quantiser),
    "Einsum": c.einsum,
    "Equal": c.comparing(ch.equal),
    "Expand": c.linear(m.expand),
    "Flatten": m.reshape,
    "GRU": c.recurrent(3),
    "Gather": c.linear(k.gather),
    "GatherElements": k.gather_elements,
    "GatherND": p.gather_nd,
    "Gemm": c.gemm,
    "GlobalAveragePool": c.linear(s.global_average),
    "GlobalLpPool": line("n c *x -> n c *y", "0"),
    "GlobalMaxPool": line("n c !*x -> n c *y", "0", reason=c.EVERY),
    "GridSample": line("n c !*x, n !*y !e -> n c !*y", "0", reason="it is sampled at places that the model computes"),
    "GroupNormalization": s.group_normalization,
    "Hardmax": ch.softmax,
    "Identity": c.copied(only_first(c.elementwise("0"))),
    "InstanceNormalization": s.instance_normalization,
    "LRN": line("n !c *s -> n !c *s", "0", reason="each channel is normalised by its neighbours"),
    "LSTM": c.recurrent(4),
    "LayerNormalization": s.layer_normalization(centred=True),
    "LinearAttention": a.linear_attention,
    "Log": c.elementwise("/0"),
    "LogSoftmax": c.along_axis(-1),
    "LpNormalization": s.lp_normalization,
    "LpPool": _POOL,
    "MatMul": line(_MATMUL, "0*1", "... m k o"),
    "MatMulInteger": q.product(1, (3,), masks={1: 3, 3: None}),
    "Max": c.elementwise("+"),
    "MaxPool": w.max_pool,
    "MaxRoiPool": line("n c !*x, !r !v -> !r c !*y", "0"),
    "Mean": c.elementwise("+"),
    "MeanVarianceNormalization": s.mean_variance,
    "Min": c.elementwise("+"),
    "Mod": c.elementwise("0/1"),
    "Mul": c.linear(c.homogeneous(c.elementwise("0*1"), {0: 1, 1: 1})),
    "OneHot": p.one_hot,
    "Neg": c.linear(only_first(c.elementwise("0")), -1),
    "Or": c.elementwise("+"),
    "PRelu": c.elementwise("0"),
    "Pad": c.linear(m.pad),
    "Pow": c.power,
    "QLinearConv": q.rounding(q.convolution(3, {4: "(g o)", 5: "(g o)"}, 8, {3: 5, 4: None, 5: None})),
    "QLinearMatMul": q.rounding(q.product(3, (4, 5), masks={3: 5, 4: None, 5: None})),
    "QuantizeLinear": q.rounding(q.linear_quantiser),
    "RMSNormalization": s.layer_normalization(centred=False),
    "RNN": c.recurrent(1),
    "Reciprocal": c.homogeneous(c.elementwise("/0"), {0: -1}),
    "ReduceMean": c.linear(s.reduce("mean")),
    "ReduceSum": c.linear(s.reduce("sum")),
    "Reshape": m.reshape,
    "Resize": c.linear(m.resize),
    "ReverseSequence": p.reverse_sequence,
    "RoiAlign": line("n c !*x, !r 4, !r -> !r c !*y", "0"),
    "RotaryEmbedding": a.rotary,
    "Scatter": p.scatter_elements,
    "ScatterElements": p.scatter_elements,
    "ScatterND": p.scatter_nd,
    "Shape": m.sizes_only,
    "Size": m.sizes_only,
    "Slice": c.linear(k.slice_),
    "Softmax": ch.softmax,
    "SpaceToDepth": c.linear(m.space_to_depth),
    "Split": c.linear(k.split),
    "Sqrt": c.homogeneous(only_first(c.elementwise("0")), {0: 0.5}),
    "Squeeze": m.reshape,
    "Sub": c.linear(c.elementwise("+"), 1, -1),
    "Sum": c.linear(c.homogeneous(c.elementwise("+"), {}, joint=True)),
    "SwiGLU": c.elementwise("0*1"),
    "TensorScatter": p.tensor_scatter,
    "Tile": c.linear(m.tile),
    "TopK": ch.top_k,
    "Transpose": m.transpose,
    "Trilu": p.whole(-1, -2, reason="a triangle of it stays"),
    "Unsqueeze": m.reshape,
    "Upsample": c.linear(m.resize),
    "Where": c.elementwise("1+2"),
}
