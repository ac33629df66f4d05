"""The table of operators: a line each, alphabetical within a kind.

A pattern says which axes go together (see ``graphprune.notation``), ``zero`` when removed elements of the output are
zero (see ``Relation``), ``macs`` what the operator costs. Operators that one pattern cannot describe name a function.
"""

from __future__ import annotations

from dataclasses import replace

from graphprune.notation import bind, pinned
from graphprune.relation import Relation
from graphprune.rules import computing as c
from graphprune.rules import moving as m
from graphprune.rules.node import NodeView, Rule

_UNARY_ZERO_TO_ZERO = """
    Abs Asin Asinh Atan Atanh Ceil Celu Elu Erf Floor Gelu HardSwish Identity IsInf IsNaN LeakyRelu Mish Neg Relu Round
    Selu Shrink Sign Sin Sinh Softsign Sqrt Swish Tan Tanh ThresholdedRelu Cast Dropout
"""
_UNARY = "Acos Acosh BitwiseNot Cos Cosh Exp HardSigmoid Not Sigmoid Softplus"
_MANY = "BitShift BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual Mod Xor"
_REDUCE_SUM = "ReduceL1 ReduceL2 ReduceSum ReduceSumSquare"
_REDUCE_ORDER = "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd"


_PINNED = {
    "it makes its elements from sizes or by chance": """
        Bernoulli EyeLike Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    """,
    "its elements are looked up, placed or counted by values that the model computes": """
        GatherND NonMaxSuppression NonZero OneHot ReverseSequence ScatterElements ScatterND TfIdfVectorizer Unique
    """,
    "each result needs all elements of its input": """
        BlackmanWindow DFT Det HammingWindow HannWindow MelWeightMatrix STFT
    """,
}
"""Operators that pin what they touch, by the reason."""


def never(reason: str) -> Rule:
    """The rule of an operator that pins what it touches."""

    def rule(node: NodeView) -> Relation:
        return pinned(node.inputs, node.outputs, f"{node.op}: {reason}")

    return rule


def line(
    pattern: str,
    zero: str = "",
    macs: str = "",
    *,
    reason: str = "a window slides over it",
) -> Rule:
    """The rule of an operator that one pattern describes."""

    def rule(node: NodeView) -> Relation:
        shapes = node.inputs
        return bind(pattern, shapes, node.outputs, reason=reason, zero=zero, macs=macs)

    return rule


def only_first(rule: Rule) -> Rule:
    """The rule over input 0 alone: the other inputs are settings without axes of their own."""

    def first(node: NodeView) -> Relation:
        return rule(replace(node, inputs=(node.inputs[0], *[None] * (len(node.inputs) - 1))))

    return first


_CONV = c.convolution("n (g i) !*x, (g o) i !*k, (g o) -> n (g o) !*y", "n g i o *k *y")
_CONV_TRANSPOSE = c.convolution("n (g i) !*x, (g i) o !*k, (g o) -> n (g o) !*y", "n g i o *k *x")
_MATMUL = "k, k -> | k, ... k o -> ... o | ... m k, k -> ... m | ... m k, ... k o -> ... m o"
_POOL = line("n c !*x -> n c !*y", "0")

TABLE: dict[str, Rule] = {
    **{op: only_first(c.elementwise("0")) for op in _UNARY_ZERO_TO_ZERO.split()},
    **{op: c.elementwise() for op in (_UNARY + " " + _MANY).split()},
    **{op: c.reduce("sum") for op in _REDUCE_SUM.split()},
    **{op: c.reduce("order") for op in _REDUCE_ORDER.split()},
    **{op: never(reason) for reason, ops in _PINNED.items() for op in ops.split()},
    "Add": c.elementwise("+"),
    "And": c.elementwise("0*1"),
    "ArgMax": c.along_axis(0, "one"),
    "ArgMin": c.along_axis(0, "one"),
    "AveragePool": _POOL,
    "BatchNormalization": line("n c *s, c, c, c, c -> n c *s", "1+2"),
    "BitwiseAnd": c.elementwise("0*1"),
    "Clip": c.clip,
    "Concat": m.concat,
    "ConstantOfShape": m.constant_of_shape,
    "Conv": _CONV,
    "ConvTranspose": _CONV_TRANSPOSE,
    "CumSum": c.along_axis(0, zero="0"),
    "DepthToSpace": m.depth_to_space,
    "Div": c.elementwise("0/1"),
    "Einsum": c.einsum,
    "Expand": m.expand,
    "Flatten": m.reshape,
    "GRU": c.recurrent(3),
    "Gather": m.gather,
    "GatherElements": m.gather_elements,
    "Gemm": c.gemm,
    "GlobalAveragePool": c.global_average,
    "GlobalLpPool": line("n c *x -> n c *y", "0"),
    "GlobalMaxPool": line("n c !*x -> n c *y", "0", reason=c.EVERY),
    "GroupNormalization": c.group_normalization,
    "Hardmax": c.softmax,
    "InstanceNormalization": c.instance_normalization,
    "LRN": line("n !c *s -> n !c *s", "0", reason="each channel is normalised by its neighbours"),
    "LSTM": c.recurrent(4),
    "LayerNormalization": c.layer_normalization(centred=True),
    "Log": c.elementwise("/0"),
    "LogSoftmax": c.softmax,
    "LpNormalization": c.lp_normalization,
    "LpPool": _POOL,
    "MatMul": line(_MATMUL, "0*1", "... m k o"),
    "Max": c.elementwise("+"),
    "MaxPool": _POOL,
    "Mean": c.elementwise("+"),
    "Min": c.elementwise("+"),
    "Mul": c.elementwise("0*1"),
    "Or": c.elementwise("+"),
    "PRelu": c.elementwise("0"),
    "Pad": m.pad,
    "Pow": c.power,
    "RMSNormalization": c.layer_normalization(centred=False),
    "RNN": c.recurrent(1),
    "Reciprocal": c.elementwise("/0"),
    "ReduceMean": c.reduce("mean"),
    "Reshape": m.reshape,
    "Resize": m.resize,
    "Shape": m.sizes_only,
    "Size": m.sizes_only,
    "Slice": m.slice_,
    "Softmax": c.softmax,
    "SpaceToDepth": m.space_to_depth,
    "Split": m.split,
    "Squeeze": m.reshape,
    "Sub": c.elementwise("+"),
    "Sum": c.elementwise("+"),
    "Tile": m.tile,
    "TopK": c.along_axis(-1, "new"),
    "Transpose": m.transpose,
    "Unsqueeze": m.reshape,
    "Upsample": m.resize,
    "Where": c.elementwise("1+2"),
}
