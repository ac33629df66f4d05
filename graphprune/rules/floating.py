"""What stands for an operator where its rounding, or what it leaves to chance, is taken out for a proof.

Each function here makes nodes that compute what the operator does as real numbers: a quantised tensor is carried as
the floats that it would be rounded from, clipped to the range of its type as before, and a random draw is a fixed
noise. A line in ``STAND_INS`` is all that an operator needs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphprune.rules.node import NodeView, Unruled

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Maker:
    """Makes the nodes that stand for one node.

    Attributes:
        node: the node, as its model has it.
        view: the same as rules see it, in the original.
        types, outputs: data type of each input and output in the original, 0 where there is none.
        carried: for each tensor of steps that is a float already, its float type.
        kind: the float type that is computed in.
        nodes: what was made.
    """

    def __init__(
        self,
        node: NodeProto,
        view: NodeView,
        types: Sequence[int],
        outputs: Sequence[int],
        carried: Mapping[str, int],
    ) -> None:
        self.node, self.view, self.types, self.outputs, self.carried = node, view, types, outputs, carried
        held = [carried[n] for n in node.input if n in carried]
        floats = [t for t in [*types[1:], *types[:1], *held] if t in FLOATS]  # scales before what they scale
        self.kind = floats[0] if floats else TensorProto.FLOAT
        self.nodes: list[NodeProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, whose name comes back."""
        result = f"{self.node.output[0]}/steady{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def constant(self, value: object, kind: int | None = None) -> str:
        """Add a constant, of the float type that is computed in by default."""
        dtype = helper.tensor_dtype_to_np_dtype(self.kind if kind is None else kind)
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def has(self, index: int) -> bool:
        """Whether the node has an input."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def number(self, index: int) -> str:
        """An input as a float."""
        name = self.node.input[index]
        held = self.carried.get(name, self.types[index])
        return name if held == self.kind else self.op("Cast", name, to=self.kind)

    def along(self, index: int, axis: int, rank: int) -> str:
        """A scale or zero point, one or one for each element of an axis, so that it broadcasts to a tensor.

        Raises:
            Unruled: it is one for each block.
        """
        shape = self.view.shape(index)
        if len(shape) > 1 and max(shape) > 1:
            raise Unruled(f"its input {index} has an element for each block")
        sizes = [1] * rank
        if shape and shape[-1] > 1:
            sizes[axis] = -1
        return self.op("Reshape", self.number(index), self.constant(sizes, TensorProto.INT64))

    def real(self, index: int, scale: int | None, point: int, axis: int | None = None) -> str:
        """What a quantised input stands for: less its zero point, times its scale where there is one."""
        rank = len(self.view.shape(index))
        place, value = (self.view.axis(1) if axis is None else axis) % max(rank, 1), self.number(index)
        if self.has(point):
            value = self.op("Sub", value, self.along(point, place, rank))
        return value if scale is None else self.op("Mul", value, self.along(scale, place, rank))

    def steps(self, value: str, scale: int, point: int) -> str:
        """A float in steps of the output, clipped to the range of its type and not rounded."""
        rank = len(self.view.out())
        axis = self.view.axis(1, rank)
        value = self.op("Div", value, self.along(scale, axis, rank))
        if self.has(point):
            value = self.op("Add", value, self.along(point, axis, rank))
        low, high = limits(self.outputs[0])
        return self.op("Min", self.op("Max", value, self.constant(low)), self.constant(high))

    def attributes(self, *left_out: str) -> dict[str, Any]:
        """The node's attributes but some, as its own model has them: a group count follows what is removed."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute if a.name not in left_out}


_RANDOM = """
    Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike
"""
RANDOM = {("", op) for op in _RANDOM.split()}
"""Operators that draw at random; Dropout in training alone."""

StandIn = Callable[[Maker], list[str]]
"""Makes nodes in place of one, and gives the names of their results, in the order of its outputs."""


def limits(kind: int) -> tuple[float, float]:
    """The least and the largest number of a type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    read: Any = ml_dtypes
    try:
        found = read.iinfo(dtype)
    except ValueError:
        found = read.finfo(dtype)
    return float(found.min), float(found.max)


def quantise(make: Maker) -> list[str]:
    """QuantizeLinear: ``x / scale + zero point``, clipped."""
    return [make.steps(make.number(0), 1, 2)]


def dequantise(make: Maker) -> list[str]:
    """DequantizeLinear: ``(q - zero point) * scale``."""
    return [make.op("Cast", make.real(0, 1, 2), to=make.outputs[0])]


def quantise_dynamically(make: Maker) -> list[str]:
    """DynamicQuantizeLinear: the same, with the range of the data and a zero point that is not rounded either."""
    x, zero = make.number(0), make.constant(0)
    low = make.op("Min", make.op("ReduceMin", x, keepdims=0), zero)
    high = make.op("Max", make.op("ReduceMax", x, keepdims=0), zero)
    span = make.op("Max", make.op("Sub", high, low), make.constant(1e-30))
    scale = make.op("Div", span, make.constant(255))
    point = make.op("Div", make.op("Neg", low), scale)
    return [make.op("Add", make.op("Div", x, scale), point), make.op("Identity", scale), make.op("Identity", point)]


def cast(make: Maker) -> list[str]:
    """Cast of numbers of steps to floats."""
    if make.outputs[0] not in FLOATS:
        raise Unruled("it casts to integers")
    return [make.op("Cast", make.number(0), to=make.outputs[0])]


def integers(kind: str, weight_axis: int) -> StandIn:
    """MatMulInteger and ConvInteger: a product of floats without their zero points."""

    def steady(make: Maker) -> list[str]:
        return [make.op(kind, make.real(0, None, 2, -2), make.real(1, None, 3, weight_axis), **make.attributes())]

    return steady


def convolve(make: Maker) -> list[str]:
    """QLinearConv; the step of its bias is that of the data times that of the weight."""
    inputs = [make.real(0, 1, 2, 1), make.real(3, 4, 5, 0)]
    if make.has(8):
        step = make.op("Mul", make.along(1, 0, 1), make.along(4, 0, 1))
        inputs.append(make.op("Mul", make.number(8), step))
    return [make.steps(make.op("Conv", *inputs, **make.attributes()), 6, 7)]


def multiply(make: Maker) -> list[str]:
    """QLinearMatMul."""
    return [make.steps(make.op("MatMul", make.real(0, 1, 2, -2), make.real(3, 4, 5, -1)), 6, 7)]


def gemm(make: Maker) -> list[str]:
    """QGemm, which gives floats where the output has no scale."""
    alpha = float(make.view.attributes.get("alpha", 1.0))
    columns = 0 if make.view.attributes.get("transB") else 1
    inputs = [make.real(0, 1, 2, 0), make.real(3, 4, 5, columns)]
    if make.has(6):
        step = make.op("Mul", make.along(1, 0, 1), make.along(4, 0, 1))
        inputs.append(make.op("Mul", make.number(6), step))
    result = make.op("Gemm", *inputs, **{**make.attributes(), "alpha": alpha, "beta": alpha})
    return [make.steps(result, 7, 8) if make.has(7) else result]


def pair(kind: str) -> StandIn:
    """QLinearAdd and QLinearMul."""
    return lambda make: [make.steps(make.op(kind, make.real(0, 1, 2), make.real(3, 4, 5)), 6, 7)]


def single(kind: str) -> StandIn:
    """An operator of one quantised input."""

    def steady(make: Maker) -> list[str]:
        if make.view.attributes.get("channels_last"):
            raise Unruled("its channels are last")
        return [make.steps(make.op(kind, make.real(0, 1, 2), **make.attributes("channels_last")), 3, 4)]

    return steady


def softmax(make: Maker) -> list[str]:
    """QLinearSoftmax; along the last axis its old versions are the same."""
    rank = len(make.view.out())
    axis = make.view.axis(-1, rank)
    if make.view.attributes.get("opset", 13) < 13 and axis != rank - 1:
        raise Unruled("it flattens its axes")
    return [make.steps(make.op("Softmax", make.real(0, 1, 2), axis=axis), 3, 4)]


def join(make: Maker) -> list[str]:
    """QLinearConcat: each part has its own scale and zero point."""
    parts = [make.real(i, i + 1, i + 2) for i in range(2, len(make.node.input), 3)]
    return [make.steps(make.op("Concat", *parts, **make.attributes()), 0, 1)]


def unrounded(make: Maker) -> list[str]:
    """Round."""
    return [make.op("Identity", make.node.input[0])]


def kept(make: Maker) -> list[str]:
    """Dropout in training: everything is kept."""
    ones = make.op("ConstantOfShape", make.op("Shape", make.node.input[0]))
    everywhere = make.op("Not", make.op("Cast", ones, to=TensorProto.BOOL))
    return [make.op("Identity", make.node.input[0]), everywhere]


def likely(make: Maker) -> list[str]:
    """Bernoulli: the probability itself."""
    return [make.op("Cast", make.node.input[0], to=make.outputs[0])]


def uniform(make: Maker) -> list[str]:
    """RandomUniform and RandomUniformLike: a fixed noise between the same ends."""
    low, high = (float(make.view.attributes.get(n, d)) for n, d in (("low", 0.0), ("high", 1.0)))
    return [_noise(make, low, high)]


def normal(make: Maker) -> list[str]:
    """RandomNormal and RandomNormalLike: a fixed noise of the same mean and variance."""
    mean, scale = (float(make.view.attributes.get(n, d)) for n, d in (("mean", 0.0), ("scale", 1.0)))
    return [_noise(make, mean - 3**0.5 * scale, mean + 3**0.5 * scale)]


_PRIME = 10007


def _noise(make: Maker, low: float, high: float) -> str:
    """Numbers that look even between two ends, told by the place of each element and the name of the tensor alone."""
    if make.node.input:
        shape = make.op("Shape", make.node.input[0])
    else:
        shape = make.constant(list(make.view.attributes["shape"]), TensorProto.INT64)
    ones = make.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.ones(1, np.int64)))
    flat = make.op("Reshape", ones, make.constant([-1], TensorProto.INT64))
    place = make.op("CumSum", flat, make.constant(0, TensorProto.INT64))
    phase = make.constant(zlib.crc32(make.view.op.encode() + make.node.output[0].encode()), TensorProto.INT64)
    mixed = make.op("Add", make.op("Mul", place, make.op("Add", place, phase)), phase)
    rest = make.op("Mod", mixed, make.constant(_PRIME, TensorProto.INT64))
    even = make.op("Div", make.op("Cast", rest, to=TensorProto.FLOAT), make.constant(_PRIME, TensorProto.FLOAT))
    wide = make.op("Mul", even, make.constant(high - low, TensorProto.FLOAT))
    found = make.op("Add", wide, make.constant(low, TensorProto.FLOAT))
    return make.op("Cast", make.op("Reshape", found, shape), to=make.outputs[0])


STAND_INS: dict[tuple[str, str], StandIn] = {
    **{(domain, "QuantizeLinear"): quantise for domain in ("", "com.microsoft")},
    **{(domain, "DequantizeLinear"): dequantise for domain in ("", "com.microsoft")},
    **{(domain, "QLinearConv"): convolve for domain in ("", "com.microsoft")},
    ("", "Bernoulli"): likely,
    ("", "Cast"): cast,
    ("", "ConvInteger"): integers("Conv", 0),
    ("", "Dropout"): kept,
    ("", "DynamicQuantizeLinear"): quantise_dynamically,
    ("", "MatMulInteger"): integers("MatMul", -1),
    ("", "QLinearMatMul"): multiply,
    ("", "RandomNormal"): normal,
    ("", "RandomNormalLike"): normal,
    ("", "RandomUniform"): uniform,
    ("", "RandomUniformLike"): uniform,
    ("", "Round"): unrounded,
    ("com.microsoft", "QGemm"): gemm,
    ("com.microsoft", "QLinearAdd"): pair("Add"),
    ("com.microsoft", "QLinearAveragePool"): single("AveragePool"),
    ("com.microsoft", "QLinearConcat"): join,
    ("com.microsoft", "QLinearGlobalAveragePool"): single("GlobalAveragePool"),
    ("com.microsoft", "QLinearLeakyRelu"): single("LeakyRelu"),
    ("com.microsoft", "QLinearMul"): pair("Mul"),
    ("com.microsoft", "QLinearSigmoid"): single("Sigmoid"),
    ("com.microsoft", "QLinearSoftmax"): softmax,
}
"""By domain and operator."""
