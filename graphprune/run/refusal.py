"""A fault on a model that is none: what ONNX Runtime does not run either is the model's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx

from graphprune.errors import FaultError, InputError
from graphprune.model import Model
from graphprune.relation import Shape
from graphprune.run import sizing

_FAULTS = (
    *(FaultError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    *(onnx.checker.ValidationError, onnx.shape_inference.InferenceError, onnx.defs.SchemaError),
)


@contextmanager
def blamed(model: Model, given: Mapping[str, Shape] | None = None) -> Iterator[None]:
    """Let what goes wrong be told as bad input where ONNX Runtime does not run the model at any size.

    A graph can be well formed and contradict itself all the same: nodes whose attributes do not fit each other or the
    shapes that reach them. No rule asks for that: it is found out here, once something has gone wrong.

    Args:
        model: as it was loaded.
        given: sizes of inputs, by name.

    Raises:
        InputError: something went wrong, and ONNX Runtime refuses the model; says why.
    """
    try:
        yield
    except _FAULTS as fault:
        if (refused := _refusal(model, given)) is None:
            raise
        raise InputError(refused) from fault


def _refusal(model: Model, given: Mapping[str, Shape] | None) -> str | None:
    """What ONNX Runtime has against a model, None where it runs it."""
    try:
        next(sizing.accepted(model.source, given))
    except InputError as refused:
        return str(refused)
    except Exception:  # what cannot be asked does not explain the fault
        return None
    return None
