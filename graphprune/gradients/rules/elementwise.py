"""Operators that work on each element alone, or on elements that meet by broadcasting.

Each line is the gradient of the inputs, by the gradient ``g`` of the output, the inputs, and the output ``y``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import TensorProto

from graphprune.gradients.table import Back, Gradient, flat, pointwise, rule
from graphprune.gradients.terms import Term

flat(
    """
    ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Constant ConstantOfShape Equal EyeLike Floor
    Greater GreaterOrEqual Hardmax And Or Xor Not IsInf IsNaN Less LessOrEqual NonZero OneHot RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Round Shape Sign Size
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
        "HardSwish": lambda g, x, y: g * (x > 3).where(1, ((x <= -3).where(0, x / 3 + 0.5))),
        "Identity": lambda g, x, y: g,
        "Log": lambda g, x, y: g / x,
        "Mish": lambda g, x, y: g * _mish(x),
        "Mul": lambda g, a, b, y: (g * b, g * a),
        "Neg": lambda g, x, y: -g,
        "Reciprocal": lambda g, x, y: -g * y * y,
        "Relu": lambda g, x, y: (y > 0).where(g, 0),
        "Sigmoid": lambda g, x, y: g * y * (1 - y),
        "Sin": lambda g, x, y: g * x.unary("Cos"),
        "Sinh": lambda g, x, y: g * x.unary("Cosh"),
        "Softplus": lambda g, x, y: g * x.unary("Sigmoid"),
        "Softsign": lambda g, x, y: g / (x.unary("Abs") + 1) ** 2,
        "Sqrt": lambda g, x, y: g * 0.5 / y,
        "Sub": lambda g, a, b, y: (g, -g),
        "Tan": lambda g, x, y: g * (y * y + 1),
        "Tanh": lambda g, x, y: g * (1 - y * y),
        "PRelu": lambda g, x, a, y: ((x > 0).where(g, g * a), (x > 0).where(0, g * x)),
        "Where": lambda g, c, a, b, y: (None, c.where(g, 0), c.where(0, g)),
    }
)


def _mish(x: Term) -> Term:
    inner = x.unary("Softplus").unary("Tanh")
    return inner + x * (1 - inner * inner) * x.unary("Sigmoid")


@rule("Pow")
def _pow(b: Back) -> Sequence[Gradient]:
    x, p = b.x[0], b.x[1].cast(b.x[0].kind)
    base = (b.g0 * p * x ** (p - 1)).sum_to(x)
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
        inner = out.where(0, inner) if out is not None else inner
    bounds = [
        out.where(g, 0).sum_to(b.x[i]) if out is not None and b.needs(i) else None for i, out in ((1, low), (2, high))
    ]
    return [inner, *bounds]


@rule("LeakyRelu")
def _leaky(b: Back) -> Sequence[Gradient]:
    return [(b.x[0] > 0).where(b.g0, b.g0 * b.attr("alpha", 0.01))]


@rule("HardSigmoid")
def _hard_sigmoid(b: Back) -> Sequence[Gradient]:
    y = b.y[0]
    return [((y > 0) & (y < 1)).where(b.g0 * b.attr("alpha", 0.2), 0)]


@rule("Gelu")
def _gelu(b: Back) -> Sequence[Gradient]:
    x, g = b.x[0], b.g0
    if b.attr("approximate", "none") == "tanh":
        root = math.sqrt(2 / math.pi)
        t = ((x + x * x * x * 0.044715) * root).unary("Tanh")
        return [g * ((t + 1) * 0.5 + x * 0.5 * (1 - t * t) * (x * x * (3 * 0.044715) + 1) * root)]
    cdf = ((x * math.sqrt(0.5)).unary("Erf") + 1) * 0.5
    return [g * (cdf + x * (x * x * -0.5).unary("Exp") * (1 / math.sqrt(2 * math.pi)))]


@rule("Dropout")
def _dropout(b: Back) -> Sequence[Gradient]:
    return [b.g0]


@rule("Cast", "CastLike")
def _cast(b: Back) -> Sequence[Gradient]:
    """Casts between floats; one to an integer cuts off what a gradient would follow."""
    kind = b.x[0].kind
    return [b.g0.cast(kind) if kind in (TensorProto.FLOAT, TensorProto.DOUBLE) else None]
