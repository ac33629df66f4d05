"""Operators that work on each element alone, or on elements that meet by broadcasting.

Each line is the gradient of the inputs, by the gradient ``g`` of the output, the inputs, and the output ``y``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import TensorProto

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import GRADIENT, INTEGERS, Back, Gradient, flat, pointwise, rule
from graphprune.gradients.terms import INT, Term

flat(
    """
    ArgMax ArgMin BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Constant ConstantOfShape Equal
    EyeLike Floor Greater GreaterOrEqual Hardmax And Or Xor Not IsInf IsNaN Less LessOrEqual NonZero RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Round Shape Sign Size
    """
)

_ROOT_PI = 2 / math.sqrt(math.pi)

pointwise(
    {
        "Abs": lambda g, x, y: g * x.unary("Sign"),
        "Acos": lambda g, x, y: -g / (1 - x * x).unary("Sqrt"),
        "Acosh": lambda g, x, y: g / (x * x - 1).unary("Sqrt"),
        "Add": lambda g, a, b, y: (g, g),
        "Asin": lambda g, x, y: g / (1 - x * x).unary("Sqrt"),
        "Asinh": lambda g, x, y: g / (x * x + 1).unary("Sqrt"),
        "Atan": lambda g, x, y: g / (x * x + 1),
        "Atanh": lambda g, x, y: g / (1 - x * x),
        "Cos": lambda g, x, y: -g * x.unary("Sin"),
        "Cosh": lambda g, x, y: g * x.unary("Sinh"),
        "Div": lambda g, a, b, y: (g / b, -g * y / b),
        "Erf": lambda g, x, y: g * _ROOT_PI * (-x * x).unary("Exp"),
        "Exp": lambda g, x, y: g * y,
        "HardSwish": lambda g, x, y: _hard_swish(x).kept(g * (x / 3 + 0.5)) + (x >= 3).kept(g),
        "Identity": lambda g, x, y: g,
        "Log": lambda g, x, y: g / x,
        "Mod": lambda g, a, b, y: (g, -g * ((a - y) / b).unary("Round")),
        "Mish": lambda g, x, y: g * _mish(x),
        "Mul": lambda g, a, b, y: (g * b, g * a),
        "Neg": lambda g, x, y: -g,
        "Reciprocal": lambda g, x, y: -g * y * y,
        "Relu": lambda g, x, y: (y > 0).kept(g),
        "Sigmoid": lambda g, x, y: g * y * (1 - y),
        "Sin": lambda g, x, y: g * x.unary("Cos"),
        "Sinh": lambda g, x, y: g * x.unary("Cosh"),
        "Softplus": lambda g, x, y: g * x.unary("Sigmoid"),
        "Softsign": lambda g, x, y: g / (x.unary("Abs") + 1) ** 2,
        "Sqrt": lambda g, x, y: g * 0.5 / y,
        "Sub": lambda g, a, b, y: (g, -g),
        "Tan": lambda g, x, y: g * (y * y + 1),
        "Tanh": lambda g, x, y: g * (1 - y * y),
        "PRelu": lambda g, x, a, y: (_bent(g, x, g * a), (x <= 0).kept(g * x)),
        "Where": lambda g, c, a, b, y: (None, c.kept(g), (~c).kept(g)),
    }
)


def shaped(table: Mapping[str, Callable[..., Term]], domain: str = "") -> None:
    """Enter functions of one variable whose shape attributes give: of ``g``, ``x``, ``y`` and the attributes."""
    for op, derivative in table.items():

        def back(b: Back, derivative: Callable[..., Term] = derivative) -> Sequence[Gradient]:
            return [derivative(b.g0, b.x[0], b.y[0], **b.attributes)]

        rule(op, domain=domain)(back)


def _bent(g: Term, x: Term, below: Term) -> Term:
    """A gradient above zero, and another below."""
    return (x > 0).where(g, below) if g.tape.steep else (x > 0).kept(g) + (x <= 0).kept(below)


def _hard_swish(x: Term) -> Term:
    """Where it is curved."""
    return x.unary("Abs") < 3


def _mish(x: Term) -> Term:
    inner = x.unary("Softplus").unary("Tanh")
    return inner + x * (1 - inner * inner) * x.unary("Sigmoid")


@rule("Pow")
def _pow(b: Back) -> Sequence[Gradient]:
    x, p = b.x[0], b.x[1].cast(b.x[0].kind)
    if p.value is not None and p.value.size == 1:
        power = float(p.value.reshape(-1)[0])
        slope = x if power == 2 else x ** (power - 1)
        base = (b.g0 * (slope * power if power != 1 else 1)).sum_to(x) if power else x.zeros()
    else:
        base = p.equals(0).where(0, b.g0 * p * x ** (p - 1)).sum_to(x)
    if not b.needs(1):
        return [base, None]
    log = (x > 0).where((x > 0).where(x, 1).unary("Log"), 0)
    return [base, (b.g0 * b.y[0] * log).sum_to(b.x[1])]


@rule("Sum", "Mean")
def _sum(b: Back) -> Sequence[Gradient]:
    g = b.g0 / len(b.x) if b.node.op_type == "Mean" else b.g0
    return [g.sum_to(x) if b.needs(i) else None for i, x in enumerate(b.x)]


@rule("Max", "Min")
def _extreme(b: Back) -> Sequence[Gradient]:
    """The gradient goes to those that are the extreme, in equal shares."""
    wins = [x.equals(b.y[0]).cast(b.g0.kind) for x in b.x]
    share = b.g0 / b.tape.total([w + b.g0.zeros() for w in wins]) if len(wins) > 1 else b.g0
    return [(share * w).sum_to(x) if b.needs(i) else None for i, (x, w) in enumerate(zip(b.x, wins, strict=True))]


@rule("Clip")
def _clip(b: Back) -> Sequence[Gradient]:
    x, g = b.x[0], b.g0
    low = x < b.x[1] if b.has(1) else None
    high = x > b.x[2] if b.has(2) else None
    inner = g
    for out in (low, high):
        inner = (~out).kept(inner) if out is not None else inner
    bounds = [
        out.kept(g).sum_to(b.x[i]) if out is not None and b.needs(i) else None for i, out in ((1, low), (2, high))
    ]
    return [inner, *bounds]


_SELU, _SELU_GAIN = 1.67326319217681884765625, 1.05070102214813232421875

shaped(
    {
        "Celu": lambda g, x, y, alpha=1.0: g * (x > 0).where(1, y / alpha + 1),
        "Elu": lambda g, x, y, alpha=1.0: g * (x > 0).where(1, y + alpha),
        "HardSigmoid": lambda g, x, y, alpha=0.2, beta=0.5: ((y > 0) & (y < 1)).kept(g * alpha),
        "LeakyRelu": lambda g, x, y, alpha=0.01: _bent(g, x, g * alpha),
        "Selu": lambda g, x, y, alpha=_SELU, gamma=_SELU_GAIN: g * (x > 0).where(gamma, y + alpha * gamma),
        "Shrink": lambda g, x, y, bias=0.0, lambd=0.5: (x.unary("Abs") > lambd).kept(g),
        "ThresholdedRelu": lambda g, x, y, alpha=1.0: (x > alpha).kept(g),
    }
)


def gelu(x: Term) -> Term:
    """The derivative of Gelu."""
    cdf = ((x * math.sqrt(0.5)).unary("Erf") + 1) * 0.5
    return cdf + x * (x * x * -0.5).unary("Exp") * (1 / math.sqrt(2 * math.pi))


def gelu_by_tanh(x: Term) -> Term:
    """The derivative of Gelu's approximation."""
    root = math.sqrt(2 / math.pi)
    square = x * x
    t = (x * (square * 0.044715 + 1) * root).unary("Tanh")
    return (t + 1) * 0.5 + x * (1 - t * t) * (square * (3 * 0.044715 * 0.5 * root) + 0.5 * root)


@rule("Gelu")
def _gelu(b: Back) -> Sequence[Gradient]:
    return [b.g0 * (gelu_by_tanh if b.attr("approximate", "none") == "tanh" else gelu)(b.x[0])]


@rule("Dropout")
def _dropout(b: Back) -> Sequence[Gradient]:
    """Where it trains, what it kept is told by its mask."""
    trains = b.value(2) if b.has(2) else np.asarray(False)
    if trains is not None and not trains.any():
        return [b.g0]
    if len(b.node.output) < 2 or not b.node.output[1]:
        raise NoGradientError("it may train, and does not give its mask")
    ratio = b.x[1].cast(b.g0.kind) if b.has(1) else b.g0.like(0.5)
    scale = 1 / (1 - ratio)
    if trains is None:
        scale = b.raw[2].where(scale, 1)
    return [b.y[1].kept(b.g0 * scale)]


@rule("Cast", "CastLike")
def _cast(b: Back) -> Sequence[Gradient]:
    """Casts between floats, and of quantised numbers; one from a float to an integer has no derivative to follow."""
    source, target = b.x[0].kind, b.y[0].kind
    if source in GRADIENT and target in INTEGERS:
        return [None]
    return [b.g0.cast(GRADIENT.get(source, TensorProto.FLOAT))]


@rule("Scaler", domain="ai.onnx.ml")
def _scaler(b: Back) -> Sequence[Gradient]:
    """Of ``(x - offset) * scale``, along the last axis."""
    return [(b.g0 * b.tape.constant(b.attr("scale"), b.g0.kind)).sum_to(b.x[0])]


@rule("Range")
@rule("Range", domain="com.microsoft")
def _range(b: Back) -> Sequence[Gradient]:
    """Of ``start + k * delta``; the number of elements counts only."""
    g, tape = b.g0, b.tape
    start = tape.op("ReduceSum", g, dims=(), keepdims=0) if b.needs(0) else None
    if not b.needs(2):
        return [start]
    count = tape.op("Range", tape.constant(0), g.count(), tape.constant(1), kind=INT, dims=g.dims)
    return [start, None, tape.op("ReduceSum", g * count.cast(g.kind), dims=(), keepdims=0)]
