"""Shape arithmetic in numpy: the values of small tensors that depend on sizes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from graphprune.relation import Shape, Values

LIMIT = 4096
"""Values of more elements are not followed: shape operands are short."""

UNKNOWN: Shape = (-1,)
"""Stands for the shape of an input that is there but of unknown shape."""

Evaluator = Callable[[Sequence[Any], Mapping[str, Any], Sequence[Shape | None]], Any]


def _axes(inputs: Sequence[Values | None], attributes: Mapping[str, Any], index: int = 1) -> Any:
    if "axes" in attributes:
        return tuple(int(a) for a in attributes["axes"])
    given = inputs[index] if index < len(inputs) else None
    return None if given is None else tuple(int(a) for a in given)


def _slice(x: Sequence[Values | None], a: Mapping[str, Any], _: Sequence[Shape | None]) -> Values:
    data = x[0]
    starts, ends = a.get("starts", x[1] if len(x) > 1 else None), a.get("ends", x[2] if len(x) > 2 else None)
    assert data is not None and starts is not None and ends is not None
    axes = _axes(x, a, 3) or tuple(range(len(starts)))
    steps = x[4] if len(x) > 4 and x[4] is not None else [1] * len(starts)
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop = None if step < 0 and end < -data.shape[axis] else int(end)
        cut[axis] = slice(int(start), stop, int(step))
    return data[tuple(cut)]


def _unsqueeze(x: Sequence[Any], a: Mapping[str, Any], _: Sequence[Shape | None]) -> Values:
    axes = _axes(x, a) or ()
    return np.expand_dims(x[0], tuple(sorted(i % (x[0].ndim + len(axes)) for i in axes)))


def _divide(x: Sequence[Any], *_: Any) -> Values:
    if np.issubdtype(x[0].dtype, np.integer):
        return np.trunc(x[0] / x[1]).astype(x[0].dtype) if np.all(x[1] != 0) else np.zeros_like(x[0])
    return np.asarray(x[0] / x[1])


def _reshape(x: Sequence[Any], a: Mapping[str, Any], _: Sequence[Shape | None]) -> Values:
    target = [x[0].shape[i] if d == 0 and not a.get("allowzero") else int(d) for i, d in enumerate(x[1])]
    return np.asarray(x[0].reshape(target))


def _shape(x: Sequence[Any], a: Mapping[str, Any], shapes: Sequence[Shape | None]) -> Values:
    return np.asarray((shapes[0] or ())[a.get("start", 0) : a.get("end", None)], dtype=np.int64)


def _fill(x: Sequence[Any], a: Mapping[str, Any], _: Sequence[Shape | None]) -> Values:
    value = numpy_helper.to_array(a["value"]).reshape(-1)[0] if "value" in a else np.float32(0)
    return np.full(tuple(int(d) for d in x[0]), value)


def _reduce(function: Callable[..., Any]) -> Evaluator:
    def run(x: Sequence[Any], a: Mapping[str, Any], _: Sequence[Shape | None]) -> Values:
        return np.asarray(function(x[0], axis=_axes(x, a), keepdims=bool(a.get("keepdims", 1))))

    return run


def _plain(function: Callable[..., Any]) -> Evaluator:
    return lambda x, a, s: function(*[v for v in x if v is not None])


def _expand(x: Sequence[Any], *_: Any) -> Values:
    shape = np.broadcast_shapes(x[0].shape, tuple(int(d) for d in x[1]))
    return np.array(np.broadcast_to(x[0], shape))


EVALUATORS: dict[str, Evaluator] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": lambda x, a, s: np.asarray(x[0]).astype(helper.tensor_dtype_to_np_dtype(a["to"])),
    "Ceil": _plain(np.ceil),
    "Concat": lambda x, a, s: np.concatenate([np.asarray(v) for v in x], a["axis"]),
    "ConstantOfShape": _fill,
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Expand": _expand,
    "Floor": _plain(np.floor),
    "Gather": lambda x, a, s: np.take(np.asarray(x[0]), np.asarray(x[1]), axis=a.get("axis", 0)),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": lambda x, a, s: x[0],
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Max": _plain(lambda *v: np.asarray(v[0]) if len(v) == 1 else np.maximum.reduce(np.broadcast_arrays(*v))),
    "Min": _plain(lambda *v: np.asarray(v[0]) if len(v) == 1 else np.minimum.reduce(np.broadcast_arrays(*v))),
    "Mod": lambda x, a, s: np.fmod(*x) if a.get("fmod") else np.mod(*x),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": lambda x, a, s: np.power(x[0], np.asarray(x[1])).astype(np.asarray(x[0]).dtype),
    "Range": _plain(lambda a, b, c: np.arange(a.reshape(()), b.reshape(()), c.reshape(())).astype(a.dtype)),
    "Reciprocal": _plain(lambda v: np.asarray(1 / v, dtype=v.dtype)),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda x, a, s: np.asarray(np.prod(s[0] or (), dtype=np.int64)),
    "Slice": _slice,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": lambda x, a, s: np.squeeze(x[0], _axes(x, a)),
    "Sub": _plain(np.subtract),
    "Tile": lambda x, a, s: np.tile(x[0], x[1]),
    "Transpose": lambda x, a, s: np.transpose(x[0], a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}

_BROADCAST = frozenset(
    (
        *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Where"),
    )
)
"""Operators whose result may be larger than each of what they are given."""

ROUNDING = ("Div", "Mod")
"""Operators whose result on whole numbers is not in proportion to what they are given."""


def _spread(x: Sequence[Any]) -> int:
    """Elements of what inputs broadcast to."""
    there = [v for v in x if v is not None]
    most = prod(v.size for v in there)
    return most if most <= LIMIT else prod(np.broadcast_shapes(*(v.shape for v in there)))


def _gathered(x: Sequence[Any], a: Mapping[str, Any]) -> int:
    data, indices = np.asarray(x[0]), np.asarray(x[1])
    return data.size // max(data.shape[a.get("axis", 0)], 1) * indices.size


_ASKED: Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], float]] = {
    "Concat": lambda x, a: sum(np.size(v) for v in x),
    "ConstantOfShape": lambda x, a: float(np.prod(np.asarray(x[0], float))),
    "Expand": lambda x, a: prod(np.broadcast_shapes(x[0].shape, tuple(int(d) for d in x[1]))),
    "Gather": _gathered,
    "Range": lambda x, a: float(np.subtract(*(np.asarray(v, float).reshape(()) for v in x[1::-1])) / x[2].reshape(())),
    "Tile": lambda x, a: float(x[0].size * np.prod(np.asarray(x[1], float))),
}
"""How many elements those come to that make more than the largest input has, before they are made; of all others it is
what their inputs broadcast to, or no more than the first."""


def evaluate(
    op: str, inputs: Sequence[Values | None], attributes: Mapping[str, Any], shapes: Sequence[Shape | None]
) -> Values | None:
    """The value of a node's only output, or None where it cannot or should not be followed.

    Args:
        op: operator type, of ONNX's own domain.
        inputs: values, None where absent or not known.
        attributes: decoded attributes.
        shapes: shapes of the inputs, None where absent; all that Shape and Size need.
    """
    evaluator = EVALUATORS.get(op)
    if evaluator is None:
        return None
    if op in ("Shape", "Size"):
        if shapes[0] in (None, UNKNOWN):
            return None
    elif any(v is None and s is not None for v, s in zip(inputs, shapes, strict=True)) or not inputs:
        return None
    try:
        with np.errstate(all="ignore"):
            if not _comes_to(op, inputs, attributes) <= LIMIT:
                return None
            value = np.asarray(evaluator(inputs, attributes, shapes))
    except (ArithmeticError, LookupError, ValueError, TypeError, AssertionError):  # what ONNX would not run either
        return None
    return value if value.size <= LIMIT else None


def _comes_to(op: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> float:
    """How many elements a node makes, or at most."""
    if op in _ASKED:
        return _ASKED[op](inputs, attributes)
    return _spread(inputs) if op in _BROADCAST else 0
