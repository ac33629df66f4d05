"""How far a model's outputs are from the original's, as ONNX nodes; what is measured depends on what an output is.

What an output is shows in its values: probabilities along an axis sum to one, those of single things lie within 0 and
1, vectors for comparison have length one. So it does not matter how an exporter wrote a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper

from graphprune.errors import InputError
from graphprune.gradients.expansion import prepared
from graphprune.gradients.known import Known
from graphprune.gradients.terms import Tape, Term
from graphprune.gradients.training import LOSS
from graphprune.relation import Values
from graphprune.run.samples import LABEL

LOSSES = ("auto", "kl", "bernoulli", "cosine", "squares")
TEACHER = "teacher:"
"""In front of an output's name: what the original makes of the same inputs."""
_NEAR = 1e-3
_LEAST = 1e-7
"""Probabilities below this are taken for it."""
_ENOUGH = 512
"""Elements that a deviation is told from."""
_TELLS = 0.5
"""What an axis of its own scales must win, in nats an element, to have them."""


@dataclass(frozen=True)
class Measure:
    """How one tensor is compared.

    Attributes:
        loss: one of :data:`LOSSES`, but ``auto``; of labels also ``entropy`` (of probabilities) and ``logits``.
        axis: that probabilities sum over, or that vectors lie along.
        scale: what differences are divided by, broadcast to the tensor.
        weight: of this tensor among all.
    """

    loss: str
    axis: int = -1
    scale: Values | None = None
    weight: float = 1.0


def measure(values: Sequence[Values], loss: str = "auto") -> Measure | None:
    """How a tensor should be compared, by what the original makes; None for what holds no floats or never changes.

    Args:
        values: from several runs.
        loss: one of :data:`LOSSES`.
    """
    if not values or values[0].dtype.kind != "f" or not all(np.isfinite(v).all() for v in values):
        return None
    if all(np.ptp(v) == 0 for v in values if v.size) and np.ptp([v.flat[0] for v in values if v.size] or [0]) == 0:
        return None
    found = _found(values)
    if loss in ("auto", found.loss):
        return found
    return Measure(loss, scale=_scale(values) if loss == "squares" else None)


def _found(values: Sequence[Values]) -> Measure:
    rank = values[0].ndim
    within = all(v.min(initial=0) >= -_NEAR and v.max(initial=0) <= 1 + _NEAR for v in values)
    for axis in reversed(range(1, rank)):
        if within and all(v.shape[axis] > 1 and np.abs(v.sum(axis) - 1).max(initial=0) < _NEAR for v in values):
            return Measure("kl", axis)
    if within:
        return Measure("bernoulli")
    if rank > 1 and all(
        v.shape[-1] > 1 and np.abs(np.sqrt((v.astype(np.float64) ** 2).sum(-1)) - 1).max(initial=0) < _NEAR
        for v in values
    ):
        return Measure("cosine", -1)
    return Measure("squares", scale=_scale(values))


def _scale(values: Sequence[Values]) -> Values:
    """Deviations: one for all elements, or one along an axis where that tells much (boxes in pixels beside scores).

    The axis is that of the largest likelihood, each index a normal distribution of its own.
    """
    rank = values[0].ndim
    whole = _deviation(values, None)
    best, gain = np.asarray(whole, np.float32), _TELLS
    for axis in range(1, rank):
        if len({v.shape[axis] for v in values}) > 1 or values[0].shape[axis] < 2:
            continue
        if sum(v.size // v.shape[axis] for v in values) < _ENOUGH:
            continue
        own = _deviation(values, axis)
        won = float(np.log(whole) - np.log(own).mean())
        if won > gain:
            shape = [1] * rank
            shape[axis] = -1
            best, gain = own.reshape(shape).astype(np.float32), won
    return best


def _deviation(values: Sequence[Values], axis: int | None) -> Values:
    """Root mean square distance from the mean, at least a thousandth of that of all."""
    axes = tuple(k for k in range(values[0].ndim) if k != axis)
    size = sum(v.size // (1 if axis is None else v.shape[axis]) for v in values)
    mean = sum(v.sum(axes, dtype=np.float64) for v in values) / size
    square = sum((v.astype(np.float64) ** 2).sum(axes) for v in values) / size
    found = np.sqrt(np.maximum(square - mean**2, 0))
    return np.maximum(found, max(float(np.sqrt(np.mean(square))) * 1e-3, 1e-12))


Own = Callable[[ModelProto, Known, Tape], Term]
"""Writes a loss of the user's beside a model, on a tape, and adds the inputs that it reads; gives the scalar."""


def with_loss(
    model: ModelProto,
    measures: Mapping[str, Measure],
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    labels: Mapping[str, Measure] | None = None,
    own: Own | None = None,
) -> ModelProto:
    """A model that computes how far it is from the original.

    Its output is ``loss``; for each tensor of ``measures`` it has an input ``teacher:<tensor>``, for each of ``labels``
    one that is called ``label:<tensor>``.

    Args:
        model: it is not changed.
        measures: by tensor, how it is compared.
        input_shapes: sizes of inputs.
        labels: by output, how it is compared with what is known to be right.
        own: a loss besides.

    Raises:
        InputError: the model does not have such a tensor.
    """
    proto, known = prepared(model, input_shapes)
    tape = Tape.beside(proto.graph)
    total: list[Term] = []
    for prefix, asked in ((TEACHER, measures), (LABEL, labels or {})):
        for name, one in asked.items():
            if name not in known.kinds:
                raise InputError(f"the model has no tensor {name!r} that could be compared")
            dims = known.dims.get(name)
            proto.graph.input.append(helper.make_tensor_value_info(prefix + name, TensorProto.FLOAT, dims))
            student = Term(tape, name, known.kinds[name], dims).cast(TensorProto.FLOAT)
            wanted = Term(tape, prefix + name, TensorProto.FLOAT, dims)
            total.append(_loss(student, wanted, one) * one.weight)
    if own is not None:
        total.append(own(proto, known, tape))
    whole = tape.total(total)
    proto.graph.node.extend(tape.nodes)
    proto.graph.node.append(helper.make_node("Identity", [whole.name], [LOSS]))
    proto.graph.initializer.extend(tape.constants.values())
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, ()))
    return proto


def _loss(s: Term, t: Term, one: Measure) -> Term:
    """The distance of one tensor, a scalar: a mean over what the loss is defined on."""
    mean = {
        "kl": lambda: (t * (_log(t) - _log(s))).sum([one.axis], keep=False),
        "bernoulli": lambda: t * (_log(t) - _log(s)) + (1 - t) * (_log(1 - t) - _log(1 - s)),
        "cosine": lambda: 1 - (_unit(s, one.axis) * _unit(t, one.axis)).sum([one.axis], keep=False),
        "squares": lambda: _square(s, t, one),
        "entropy": lambda: -(t * _log(s)).sum([one.axis], keep=False),
        "logits": lambda: -(t * s.tape.op("LogSoftmax", s, dims=s.dims, axis=one.axis)).sum([one.axis], keep=False),
    }[one.loss]()
    return mean.tape.op("ReduceMean", mean, keepdims=0, dims=())


def _square(s: Term, t: Term, one: Measure) -> Term:
    assert one.scale is not None
    away = (s - t) / s.tape.constant(one.scale, TensorProto.FLOAT)
    return away * away


def _log(x: Term) -> Term:
    return x.tape.op("Clip", x, x.like(_LEAST), dims=x.dims).unary("Log")


def _unit(x: Term, axis: int) -> Term:
    return x / ((x * x).sum([axis]) + 1e-12).unary("Sqrt")
