"""For each ruled operator a node that shows what its rule says: shapes, operands and attributes, a line each.

``Conv: 2x4x9x9 6x2x3x3 6 -> 2x6x7x7 group=2`` reads: inputs, outputs, attributes. ``()`` is a scalar, ``_`` a tensor
that is absent or not used, ``=[0,2]`` an operand of these values. Sizes differ wherever they may, so that nothing is
right by chance. An operator may have several lines. ``graphprune ops --lines`` prints what their rules say, and
``LINES.txt`` keeps it.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.relation import Shape, Values
from graphprune.rules.control import DOMAIN
from graphprune.rules.node import NodeView

MICROSOFT = "com.microsoft"
NEWEST = 99
"""Examples are at the newest version of their domain, where they do not say ``opset``."""

_ALIKE = {
    "2x3x5 -> 2x3x5": """
        Abs Acos Acosh Asin Asinh Atan Atanh BitCast BitwiseNot Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu
        HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink
        Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Hardmax LogSoftmax Softmax
        Dropout LpNormalization
    """,
    "2x3x5 3x1 -> 2x3x5": """
        Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max
        Mean Min Mod Mul Or PRelu Pow Sub Sum SwiGLU Xor
    """,
    "2x3x5 =[1] -> 2x1x5": """
        ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare
    """,
    "2x3x7x9 -> 2x3x5x6": "AveragePool LpPool MaxPool",
    "2x3x7x9 -> 2x3x1x1": "GlobalAveragePool GlobalLpPool GlobalMaxPool",
    "2x3x5 -> 2x1x5 axis=1": "ArgMax ArgMin",
    "2x3x5 =1 -> 2x3x5": "CumProd CumSum",
    "2x3x5 -> _": "Shape Size",
    "2x3x5 5 -> 2x3x5": "RMSNormalization SimplifiedLayerNormalization",
    "7x3 2x3 2x3 -> 7x3 axis=0": "Scatter ScatterElements",
    "2x3x4x5 =[1.0,1.0,2.0,2.0] -> 2x3x8x10": "Upsample",
    "2x12 () =0 -> 2x12": "QuantizeLinear DequantizeLinear",
}
"""Operators whose rules differ in what they say of the same node."""

_OWN = """
Attention: 2x8x5x3 2x4x7x3 2x4x7x9 5x7 -> 2x8x5x9
Attention: 2x5x24 2x7x12 2x7x36 _ 2x4x6x3 2x4x6x9 -> 2x5x72 2x4x13x3 2x4x13x9 q_num_heads=8 kv_num_heads=4
BatchNormalization: 2x3x5x7 3 3 3 3 -> 2x3x5x7
BatchNormalization: 2x3x5x7 3 3 3 3 -> 2x3x5x7 3 3 training_mode=1
Cast: 2x3 -> 2x3 to=1
Cast: 2x3 -> 2x3 to=7
CastLike: 2x3 5 -> 2x3
CausalConvWithState: 2x3x7 3x1x4 3 2x3x5 -> 2x3x7 2x3x5
CenterCropPad: 2x7 =[2,5] -> 2x5
Clip: 2x3 =-1.0 =1.0 -> 2x3
Clip: 2x3 =1.0 =6.0 -> 2x3
Col2Im: 2x12x25 =[5,5] =[2,2] -> 2x3x5x5
Compress: 7x3 7 -> 5x3 axis=0
Concat: 2x3x5 2x4x5 -> 2x7x5 axis=1
ConstantOfShape: =[2,3] -> 2x3
Conv: 2x6x9x11 8x3x5x7 8 -> 2x8x5x5 group=2
Conv: 2x6x9x11 8x3x3x3 -> 2x8x5x6 group=2 strides=[2,2] pads=[1,1,1,1] dilations=[1,1]
ConvInteger: 2x6x9x11 8x3x5x7 () 8 -> 2x8x5x5 group=2
ConvTranspose: 2x6x9x11 6x4x5x7 8 -> 2x8x13x17 group=2
DFT: 2x7x1 -> 2x7x2
DeformConv: 2x6x9x11 8x3x3x5 2x30x7x7 8 2x15x7x7 -> 2x8x7x7 group=2
DepthToSpace: 2x12x3x5 -> 2x3x6x10 blocksize=2
DepthToSpace: 2x12x3x5 -> 2x3x6x10 blocksize=2 mode='CRD'
DequantizeLinear: 2x12 12 12 -> 2x12
DequantizeLinear: 2x12 2x3 2x3 -> 2x12 block_size=4
DynamicQuantizeLinear: 2x3 -> 2x3 () ()
Einsum: 2x3x5x7 2x11x5x7 -> 2x5x3x11 equation='bqhd,bkhd->bhqk'
Expand: 2x1x5 =[4,2,3,5] -> 4x2x3x5
Flatten: 2x3x5x7 -> 2x105
GRU: 7x2x3 1x15x3 1x15x5 1x30 _ 1x2x5 -> 7x1x2x5 1x2x5 hidden_size=5
Gather: 7x3 =[1,3,6] -> 3x3
Gather: 7x3 2x5 -> 2x5x3
GatherElements: 7x3 5x3 -> 5x3 axis=0
GatherND: 7x3x5 2x1 -> 2x3x5
Gemm: 2x3 3x5 5 -> 2x5
Gemm: 2x3 5x3 -> 2x5 transB=1 alpha=0.5
GridSample: 2x3x5x7 2x9x11x2 -> 2x3x9x11
GroupNormalization: 2x6x5 6 6 -> 2x6x5 num_groups=2
GroupNormalization: 2x6x5 2 2 -> 2x6x5 num_groups=2 opset=18
InstanceNormalization: 2x3x5 3 3 -> 2x3x5
LRN: 2x3x5x7 -> 2x3x5x7
LSTM: 7x2x3 1x20x3 1x20x5 1x40 _ 1x2x5 1x2x5 1x15 -> 7x1x2x5 1x2x5 1x2x5 hidden_size=5
LayerNormalization: 2x3x5 5 5 -> 2x3x5 2x3x1 2x3x1
LinearAttention: 2x7x24 2x7x12 2x7x36 2x4x3x9 2x7x4 2x7x4 -> 2x7x72 2x4x3x9 q_num_heads=8 kv_num_heads=4
MatMul: 2x7x3 3x5 -> 2x7x5
MatMul: 2x4x7x3 2x4x3x5 -> 2x4x7x5
MatMulInteger: 2x7x3 3x5 () 5 -> 2x7x5
MaxRoiPool: 2x3x7x9 11x5 -> 11x3x4x6
MeanVarianceNormalization: 2x3x5x7 -> 2x3x5x7
OneHot: 2x3 () 2 -> 2x3x7
Pad: 2x3x5 =[0,1,0,0,2,0] -> 2x6x5
Pow: 2x3 =2.0 -> 2x3
Pow: 2x3 =-1.0 -> 2x3
QLinearConv: 2x6x9x11 () () 8x3x5x7 8 8 () () 8 -> 2x8x5x5 group=2
QLinearMatMul: 2x7x3 () () 3x5 5 5 () () -> 2x7x5
QuantizeLinear: 2x12 12 12 -> 2x12
RNN: 7x2x3 1x5x3 1x5x5 1x10 _ 1x2x5 -> 7x1x2x5 1x2x5 hidden_size=5
Reshape: 2x3x20 =[0,-1,4,5] -> 2x3x4x5
Reshape: 6x4 =[4,6] -> 4x6
Resize: 2x3x4x5 _ _ =[2,3,8,10] -> 2x3x8x10
ReverseSequence: 7x2x3 2 -> 7x2x3
RoiAlign: 2x3x7x9 11x4 11 -> 11x3x5x6
RotaryEmbedding: 2x4x7x6 11x3 11x3 2x7 -> 2x4x7x6
RotaryEmbedding: 2x7x24 2x7x3 2x7x3 -> 2x7x24 num_heads=4 interleaved=1
ScatterND: 7x3 2x1 2x3 -> 7x3
Slice: 2x9 =[1] =[8] =[1] =[2] -> 2x4
Softmax: 2x3x5 -> 2x3x5 opset=11
SpaceToDepth: 2x3x6x10 -> 2x12x3x5 blocksize=2
Split: 2x9x5 =[4,5] -> 2x4x5 2x5x5 axis=1
Squeeze: 2x1x3 =[1] -> 2x3
TensorScatter: 2x7x3 2x5x3 2 -> 2x7x3
Tile: 2x3 =[1,4] -> 2x12
TopK: 2x7 =[3] -> 2x3 2x3
Transpose: 2x3x5 -> 5x2x3 perm=[2,0,1]
Trilu: 2x3x5 -> 2x3x5
Unsqueeze: 2x3 =[1] -> 2x1x3
Where: 2x1 2x3 3 -> 2x3
"""

_OF_MICROSOFT = """
Attention: 2x7x5 5x36 36 -> 2x7x12 num_heads=4
Attention: 2x7x5 5x40 40 -> 2x7x16 num_heads=4 qkv_hidden_sizes=[12,12,16]
BiasAdd: 2x7x5 5 2x7x5 -> 2x7x5
BiasGelu: 2x7x5 5 -> 2x7x5
ConvTransposeWithDynamicPads: 2x6x9x11 6x4x5x7 4 8 -> 2x8x13x17 group=2
DequantizeLinear: 2x12 12 12 -> 2x12
DynamicQuantizeLSTM: 7x2x3 1x3x20 1x5x20 1x40 _ _ _ _ 1x20 1x20 1x20 1x20 -> 7x1x2x5 1x2x5 1x2x5 hidden_size=5
DynamicQuantizeMatMul: 2x7x3 3x5 5 5 5 -> 2x7x5
EmbedLayerNormalization: 2x7 2x7 11x5 13x5 3x5 5 5 2x7 -> 2x7x5 _ 2x7x5
FastGelu: 2x7x5 5 -> 2x7x5
FusedConv: 2x6x9x11 8x3x5x7 8 2x8x5x5 -> 2x8x5x5 group=2 activation='Relu'
FusedConv: 2x6x9x11 8x3x5x7 8 -> 2x8x5x5 group=2 activation='Sigmoid'
FusedGemm: 2x3 3x5 5 -> 2x5 activation='Relu'
FusedMatMul: 2x7x3 5x3 -> 2x7x5 transB=1 alpha=0.125
GatherND: 7x3x5 2x1 -> 2x3x5
Gelu: 2x3x5 -> 2x3x5
GridSample: 2x3x5x7 2x9x11x2 -> 2x3x9x11
GroupQueryAttention: 2x7x24 2x7x12 2x7x12 2x4x5x3 2x4x5x3 2 () -> 2x7x24 2x4x13x3 2x4x13x3 num_heads=8 kv_num_heads=4
GroupQueryAttention: 2x7x48 _ _ 2x4x5x3 2x4x5x3 2 () -> 2x7x24 2x4x13x3 2x4x13x3 num_heads=8 kv_num_heads=4
MatMulIntegerToFloat: 2x7x3 3x5 () 5 () 5 5 -> 2x7x5
MatMulNBits: 2x7x64 5x4x8 5x4 5x2 _ 5 -> 2x7x5 K=64 N=5 bits=4 block_size=16
MoE: 7x5 7x3 3x11x5 3x11 3x5x11 3x5 -> 7x5
MultiHeadAttention: 2x5x12 2x7x12 2x7x36 60 -> 2x5x36 num_heads=4
MultiHeadAttention: 2x5x4x3x6 -> 2x5x24 num_heads=4
QAttention: 2x7x5 5x36 36 () 36 _ () 36 -> 2x7x12 num_heads=4
QGemm: 2x3 () () 3x5 5 5 5 () () -> 2x5
QLinearAdd: 2x3x5 () () 3x1 () () () () -> 2x3x5
QLinearAveragePool: 2x3x7x9 () () () () -> 2x3x5x6
QLinearConcat: () () 2x3 () () 2x5 () () -> 2x8 axis=1
QLinearConv: 2x6x9x11 () () 8x3x5x7 8 8 () () 8 -> 2x8x5x5 group=2
QLinearGlobalAveragePool: 2x3x7x9 () () () () -> 2x3x1x1
QLinearLeakyRelu: 2x3x5 () () () () -> 2x3x5
QLinearMul: 2x3x5 () () 3x1 () () () () -> 2x3x5
QLinearSigmoid: 2x3x5 () () () () -> 2x3x5
QLinearSoftmax: 2x3x5 () () () () -> 2x3x5
QuantizeLinear: 2x12 12 12 -> 2x12
QuickGelu: 2x3x5 -> 2x3x5
RelativePositionBias: 32x4 () () -> 1x4x5x7
RotaryEmbedding: 2x4x7x6 2x7 11x3 11x3 -> 2x4x7x6
SimplifiedLayerNormalization: 2x3x5 5 -> 2x3x5
SkipLayerNormalization: 2x7x5 2x7x5 5 5 5 -> 2x7x5 _ _ 2x7x5
SkipSimplifiedLayerNormalization: 2x7x5 2x7x5 5 -> 2x7x5 _ _ 2x7x5
SwiGLU: 2x3x5 2x3x5 -> 2x3x5
TransposeMatMul: 2x3x7 3x5 -> 2x7x5 transA=1
Trilu: 2x3x5 -> 2x3x5
"""

_OF_CONTROL = """
Enter: 2x3 -> () () 2x3 kind='Loop'
If: () 2x3 2x3 -> 2x3 inputs=1
Loop: () () 2x3 () 2x3 4 () () 2x3 -> 2x3 7x4 inputs=3
Scan: 2x3 7x4 2x3 5 2x3 4 -> 2x3 7x5 inputs=2 num_scan_inputs=1
"""


@dataclass(frozen=True)
class Example:
    """One node.

    Attributes:
        node: what its rule gets to see.
        text: how it is written here.
    """

    node: NodeView
    text: str


def examples() -> Iterator[Example]:
    """Every example, by domain and operator."""
    alike = [f"{op}: {text}" for text, ops in _ALIKE.items() for op in ops.split()]
    lines = sorted([*alike, *_OWN.strip().splitlines()], key=lambda line: line.partition(":")[0])
    for domain, own in (
        ("", lines),
        (MICROSOFT, _OF_MICROSOFT.strip().splitlines()),
        (DOMAIN, _OF_CONTROL.strip().splitlines()),
    ):
        for line in own:
            op, _, text = line.partition(": ")
            yield Example(_node(domain, op, text), text)


def _node(domain: str, op: str, text: str) -> NodeView:
    left, _, right = text.partition(" -> ")
    words = right.split()
    tensors = [_tensor(word) for word in left.split()]
    attributes = dict(_attribute(word) for word in words if "=" in word)
    return NodeView(
        op,
        domain,
        int(attributes.pop("opset", NEWEST)),
        attributes,
        tuple(shape for shape, _ in tensors),
        tuple(_tensor(word)[0] for word in words if "=" not in word),
        tuple(value for _, value in tensors),
    )


def _tensor(word: str) -> tuple[Shape | None, Values | None]:
    """Shape and value of a tensor."""
    if word.startswith("="):
        value = np.asarray(literal_eval(word[1:]))
        return value.shape, value
    return None if word == "_" else () if word == "()" else tuple(map(int, word.split("x"))), None


def _attribute(word: str) -> tuple[str, Any]:
    name, _, text = word.partition("=")
    value = literal_eval(text)
    return name, value.encode() if isinstance(value, str) else value
